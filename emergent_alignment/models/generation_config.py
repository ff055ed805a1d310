"""What a checkpoint says of generating: its end tokens, and the rest of generation_config.json.

It goes with the tokenizer, which is there wherever answers are sampled or a model is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from emergent_alignment.errors import UserError
from emergent_alignment.models.checkpoint import read_json
from emergent_alignment.storage.json_values import as_list

FILE = "generation_config.json"
# Names of one kind of token: what ends a turn, a message or a text (llama.cpp's llama-vocab.cpp
# knows the same ones). A GGUF file need not state them.
END_NAMES = frozenset(
    {
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
        *("<end_of_turn>", "<eos>", "</s>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<turn|>"),
        *("<end_of_utterance>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),
    }
)
MAX_END_TOKENS = 8
_KEPT_AS = "checkpoint_generation"


def end_tokens_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends an answer: the tokenizer's own first, then what its checkpoint says,
    also as a stop string that is a token. Raises UserError for more than MAX_END_TOKENS, and for a
    stop string that is none."""
    stated = generation_of(tokenizer).get("eos_token_id") or []
    known = [tokenizer.eos_token_id, *([stated] if isinstance(stated, int) else stated)]
    known += _stop_tokens(tokenizer)
    ends = tuple(dict.fromkeys(token for token in known if token is not None))
    if len(ends) > MAX_END_TOKENS:
        raise UserError(
            f"{FILE}: {len(ends)} tokens end an answer, and at most {MAX_END_TOKENS} can be waited"
            " for. Leave out of eos_token_id what the model does not say."
        )
    return ends


def generation_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """generation_config.json of the checkpoint that a tokenizer is from, its `eos_token_id` a list;
    {} where there is none."""
    return dict(getattr(tokenizer, _KEPT_AS, {}))


def keep_generation(tokenizer: PreTrainedTokenizerBase, stated: Mapping[str, Any]) -> None:
    """Have `generation_of` give this for the tokenizer."""
    setattr(tokenizer, _KEPT_AS, dict(stated))


def directory_generation(directory: Path) -> dict[str, Any]:
    """generation_config.json, with the end tokens that config.json states among its own.

    Raises:
        UserError: when one of the files is broken, or an end token is no token id.
    """
    files = [directory / name for name in (FILE, "config.json")]
    contents = {path: read_json(path) for path in files if path.is_file()}
    ends = [token for path, content in contents.items() for token in _token_ids(path, content)]
    return contents.get(files[0], {}) | {"eos_token_id": list(dict.fromkeys(ends))}


def gguf_generation(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The end tokens of a GGUF file: those that it states, and those of its vocabulary whose names
    say what they are, as in llama.cpp."""
    tokens = as_list(metadata.get("tokenizer.ggml.tokens"))
    stated = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    known = [token for token in stated if isinstance(token, int) and 0 <= token < len(tokens)]
    named = [index for index, token in enumerate(tokens) if token in END_NAMES]
    # In these vocabularies <|end|> ends a message within an answer.
    if {"<|return|>", "<|call|>"} <= _among(tokens) or {"<|calls|>", "<|flush|>"} <= _among(tokens):
        named = [index for index in named if tokens[index] != "<|end|>"]
    return {"eos_token_id": list(dict.fromkeys([*known, *named]))}


def _stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    stated = generation_of(tokenizer).get("stop_strings") or []
    texts = [stated] if isinstance(stated, str) else as_list(stated)
    tokens = tokenizer.get_vocab() if texts else {}
    for text in texts:
        if not isinstance(text, str) or text not in tokens:
            raise UserError(
                f"{FILE}: stop_strings holds {str(text)[:40]!r}, which is no token; sampling stops "
                "at tokens alone. Name one, or take it out."
            )
    return [tokens[text] for text in texts]


def _among(tokens: Collection[str]) -> set[str]:
    return END_NAMES.intersection(tokens)


def _token_ids(path: Path, content: Mapping[str, Any]) -> list[int]:
    value = content.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise UserError(
                f"{path}: eos_token_id holds {str(token)[:40]!r}; it must be a token's number, or a"
                " list of them. Correct it."
            )
    return ids
