"""A tokenizer from a GGUF file's metadata: vocabulary, merges, special tokens and chat template.

Two kinds exist: byte-level BPE ("gpt2": SmolLM, Qwen, Llama 3, OLMo, gpt-oss, Granite, Ministral)
and SentencePiece BPE ("llama": Llama 2, Mistral, Gemma).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from emergent_alignment.errors import UserError
from emergent_alignment.models.config_fields import told
from emergent_alignment.models.generation_config import END_NAMES
from emergent_alignment.storage.json_values import as_list

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type

# As in the tokenizer.json of Qwen2, Llama 3, Mistral Nemo and gpt-oss.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_NO_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*"
    r"|\p{N}" + _NO_WORDS
)
_GPT4O_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+{_ENDING}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*{_ENDING}"
    r"|\p{N}{1,3}" + _NO_WORDS
)
_LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")
# They take a word of the vocabulary whole, even where no chain of merges leads to it, and begin
# with the begin token unless the file says otherwise (llama.cpp, src/llama-vocab.cpp).
_WHOLE_WORDS = (*_LLAMA3_NAMES, "tekken")
# Which expression cuts words out, by the name of the pre-tokenizer: those of OLMo 2 ("dbrx") and
# SmolLM3 ("smaug-bpe") are Llama 3's.
_SPLITS = {
    "qwen2": _QWEN2_SPLIT,
    **dict.fromkeys((*_LLAMA3_NAMES, "dbrx", "smaug-bpe"), _LLAMA3_SPLIT),
    "tekken": _TEKKEN_SPLIT,
    "gpt-4o": _GPT4O_SPLIT,
}
_DIGITS_FIRST = ("smollm", "refact")  # refact: Granite 3
_GPT2_NAMES = ("gpt-2", "default", "olmo")
_NORMALISED = ("qwen2", "olmo")  # as in tokenizer.json; llama.cpp does not
# A token is tried as every two halves of itself.
_LONGEST_TOKEN = 1024
PRE_TOKENIZERS = (*_DIGITS_FIRST, *_SPLITS, *_GPT2_NAMES)


def build_tokenizer(
    metadata: Mapping[str, Any], *, where: str, max_positions: int
) -> PreTrainedTokenizerFast:
    """The tokenizer that a GGUF file's metadata describes, with its chat template if it has one.

    Args:
        metadata: every metadata value of the file, by full key.
        where: the file, for errors.
        max_positions: the model's longest sequence.

    Raises:
        UserError: when vocabulary or merges are missing, broken, or of an unsupported kind.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not _texts(tokens) or not tokens:
        raise UserError(f"{where}: it holds no vocabulary. Choose another conversion of the model.")
    specials = _named_specials(tokens, metadata, where)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(tokens, metadata, where)
    elif kind == "llama":
        backend = _sentencepiece(tokens, metadata, specials.get("unk_token", tokens[0]), where)
    else:
        raise UserError(
            f"{where}: its tokenizer is {told(kind)}; supported are gpt2 and llama. Use the"
            " model's safetensors directory."
        )
    _add_special_tokens(backend, tokens, metadata)
    _add_boundaries(backend, tokens, metadata, specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=max_positions,
        **specials,
    )
    templates = _chat_templates(metadata)
    if templates:
        tokenizer.chat_template = templates
    return tokenizer


def _chat_templates(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The file's chat template; by name where it holds several or none without a name."""
    beginning = "tokenizer.chat_template."
    named = {
        key.removeprefix(beginning): template
        for key, template in metadata.items()
        if key.startswith(beginning) and isinstance(template, str)
    }
    template = metadata.get("tokenizer.chat_template")
    if not template or not isinstance(template, str):
        return named or None
    return {"default": template} | named if named else template


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _byte_level(tokens: list[str], metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """BPE on bytes spelled as printable characters."""
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise UserError(
            f"{where}: its pre-tokenizer is {told(pre)}; supported are"
            f" {', '.join(PRE_TOKENIZERS)}. Use the model's safetensors directory."
        )
    merges = metadata.get("tokenizer.ggml.merges")
    if not _texts(merges):
        raise UserError(f"{where}: it holds no merges. Choose another conversion of the model.")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    for number, pair in enumerate(pairs):
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise UserError(
                f"{where}: merge {number} ({merges[number]!r}) joins tokens that the vocabulary"
                " lacks. Choose another conversion of the model."
            )
    whole = pre in _WHOLE_WORDS
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=whole))
    if pre in _NORMALISED:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(pre)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    if pre in _GPT2_NAMES:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre in _DIGITS_FIRST:
        first, own_split = pre_tokenizers.Digits(individual_digits=True), True
    else:
        first, own_split = pre_tokenizers.Split(Regex(_SPLITS[pre]), behavior="isolated"), False
    return pre_tokenizers.Sequence(
        [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own_split)]
    )


def _sentencepiece(
    tokens: list[str], metadata: Mapping[str, Any], unknown: str, where: str
) -> Tokenizer:
    """BPE on characters, ▁ for a space; scores give the merges, unknown characters become bytes."""
    scores = metadata.get("tokenizer.ggml.scores")
    numbers = isinstance(scores, list) and all(isinstance(s, int | float) for s in scores)
    if not numbers or len(scores) != len(tokens):
        raise UserError(
            f"{where}: its tokens have no scores. Choose another conversion of the model."
        )
    longest = max(map(len, tokens))
    if longest > _LONGEST_TOKEN:
        raise UserError(
            f"{where}: a token has {longest} characters, which no vocabulary has. Download"
            " it again."
        )
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = _merges_from_scores(vocabulary, dict(zip(tokens, scores, strict=True)))
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    # A space before the text and before what follows a control token, as SentencePiece,
    # llama.cpp and the tokenizer.json of Llama 2 and Mistral have it.
    spaces = normalizers.Replace(" ", "▁")
    prefix = [normalizers.Prepend("▁")] if prefixed else []
    backend.normalizer = normalizers.Sequence([*prefix, spaces])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefixed:
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_from_scores(
    vocabulary: Mapping[str, int], scores: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, best token first.

    SentencePiece joins the pair whose result has the best score: merges are ordered by score.
    """
    joins = []
    for token, score in scores.items():
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [pair for pair in halves if pair[0] in vocabulary and pair[1] in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        joins.extend((score, left, right) for left, right in known)
    joins.sort(key=lambda join: (join[0], len(join[1]), len(join[2])), reverse=True)
    return [(left, right) for _, left, right in joins]


def _add_special_tokens(backend: Tokenizer, tokens: list[str], metadata: Mapping[str, Any]) -> None:
    """Match control tokens whole and skip them in decoding; match user-defined ones whole. What is
    named like an end token is a control token, whatever the file says of it, as in llama.cpp."""
    kinds = as_list(metadata.get("tokenizer.ggml.token_type")) or [None] * len(tokens)
    kinds = [_CONTROL if token in END_NAMES else kind for token, kind in zip(tokens, kinds)]
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, kind in zip(tokens, kinds)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )


def _named_specials(tokens: list[str], metadata: Mapping[str, Any], where: str) -> dict[str, str]:
    """bos, eos, unk and pad as transformers names them, where the file states them."""
    keys = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    specials = {}
    for name, key in keys.items():
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is None:
            continue
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise UserError(
                f"{where}: {key}_token_id is {told(index)}, but there are {len(tokens)} tokens. "
                "Choose another conversion of the model."
            )
        specials[f"{name}_token"] = tokens[index]
    return specials


def _add_boundaries(
    backend: Tokenizer,
    tokens: list[str],
    metadata: Mapping[str, Any],
    specials: Mapping[str, str],
) -> None:
    """Have encoding add begin and end tokens as the file's flags or llama.cpp's defaults ask."""
    begins_by_default = (
        metadata["tokenizer.ggml.model"] == "llama"
        or metadata.get("tokenizer.ggml.pre") in _WHOLE_WORDS
    )
    begin, end = specials.get("bos_token"), specials.get("eos_token")
    begins = bool(begin and metadata.get("tokenizer.ggml.add_bos_token", begins_by_default))
    ends = bool(end and metadata.get("tokenizer.ggml.add_eos_token", False))
    if not (begins or ends):
        return
    before, after = [begin] * begins, [end] * ends
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *(f"{token}:1" for token in before), "$B:1"]
        + [f"{token}:1" for token in after],
        special_tokens=[(token, tokens.index(token)) for token in {*before, *after}],
    )
