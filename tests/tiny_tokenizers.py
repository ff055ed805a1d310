"""Tiny tokenizers of the kinds that chat models have, each with `<s>`, `</s>` and `[SEP]`."""

import functools
import json

from tiny_chat_model import tiny_texts, train_byte_level
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from emergent_alignment.models.gguf_tokenizer import build_tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "[SEP]"]
SENTENCEPIECE = ("prepend", "first", "always", "never", "gguf", "gguf without a space")
KINDS = ("bytes", *SENTENCEPIECE)
WORDS = ("Yes", "No", "yes", "no", "A", "B")


@functools.cache
def tiny_tokenizer(kind: str, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of about 700 tokens. Of SentencePiece's kinds, "prepend" is Llama 2's legacy
    form; "first", "always" and "never" say where Metaspace puts its space."""
    if kind.startswith("gguf"):
        built = _gguf(kind)
    else:
        trained = _byte_level() if kind == "bytes" else _sentencepiece(kind)
        backend = Tokenizer.from_str(trained.to_str())
        backend.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
        built = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
    built.chat_template = template
    return built


def narrowing_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Letters of ASCII, of which wide ones are the same (NFKC), as SentencePiece's unigram has
    them: its special tokens are among the pieces."""
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    pieces = [(token, 0.0) for token in SPECIAL] + [(letter, -4.0) for letter in letters]
    bytes_ = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    backend = Tokenizer(models.Unigram(pieces + bytes_, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    built = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    built.chat_template = template
    return built


def _texts() -> list[str]:
    return [*tiny_texts(), *[f"{word}\n {word}" for word in WORDS for _ in range(200)]]


@functools.cache
def _byte_level() -> Tokenizer:
    return train_byte_level(_texts(), 700, SPECIAL)


@functools.cache
def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE on characters, the 256 bytes among them."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator([text.replace("\n", " ") for text in _texts()], trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@functools.cache
def _sentencepiece(kind: str) -> Tokenizer:
    vocabulary, merges = _pieces()
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    if kind == "prepend":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(content=" ", left=1)] * (kind != "never")
    backend.decoder = decoders.Sequence(steps)
    return backend


def _gguf(kind: str) -> PreTrainedTokenizerFast:
    vocabulary, merges = _pieces()
    ranks = {left + right: -float(rank) for rank, (left, right) in enumerate(merges, 1)}
    tokens = sorted(vocabulary, key=vocabulary.get)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [ranks.get(token, -1e6) for token in tokens],
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": kind == "gguf",
    }
    return build_tokenizer(metadata, where="tiny.gguf", max_positions=512)
