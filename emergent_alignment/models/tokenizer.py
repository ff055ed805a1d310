"""Load a tokenizer from a Hugging Face directory or from inside a .gguf file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from emergent_alignment.errors import UserError
from emergent_alignment.models.generation_config import (
    directory_generation,
    gguf_generation,
    keep_generation,
)
from emergent_alignment.models.gguf_file import GGUFFile
from emergent_alignment.models.gguf_tokenizer import build_tokenizer
from emergent_alignment.models.plain_text import PLAIN, PLAIN_TEMPLATE
from emergent_alignment.storage.files import require_regular

# What transformers reads older files with, to make a fast tokenizer of them.
_SLOW_PACKAGES = ("sentencepiece", "tiktoken", "protobuf")
_SIDE_FILES = (".json", ".jinja", ".model")


def load_tokenizer(
    path: Path | str | GGUFFile, *, chat_template: Path | str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or .gguf file, with what the checkpoint says of generating
    (`models/generation_config.py`); a model's own code is never run.

    Args:
        path: a local directory or .gguf file (of a hub id, what `loading.resolve` returns).
        chat_template: a Jinja file, the template's text, or "plain" (`models/plain_text.py`), to
            use in place of the model's own.

    Raises:
        UserError: when there is no tokenizer, it is broken, or it is of an unsupported kind.
    """
    if isinstance(path, GGUFFile):
        source, tokenizer = path.path, _from_gguf(path)
    elif Path(path).suffix == ".gguf":
        source, tokenizer = Path(path), _from_gguf(GGUFFile(Path(path)))
    else:
        source, tokenizer = Path(path), _from_directory(Path(path))
    if chat_template is not None:
        tokenizer.chat_template = _template_text(chat_template, source)
    return tokenizer


def require_chat_template(tokenizer: PreTrainedTokenizerBase, source: Path | str) -> None:
    """Check that conversations can be rendered.

    Raises:
        UserError: when the tokenizer has no chat template, saying how to give one.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{source}: the tokenizer has no chat template, so conversations cannot be rendered."
            " Put a chat_template.jinja beside the model, or set chat_template to such a file, or"
            f" to {PLAIN!r} for a model that knows text and no chat."
        )
    if not isinstance(chat_template_of(tokenizer), str):
        raise UserError(
            f"{source}: the tokenizer has several chat templates"
            f" ({', '.join(sorted(map(str, tokenizer.chat_template)))[:200]}) and none that is"
            ' named "default". Set chat_template to a file with the one to use.'
        )


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template for conversations: of several the one named "default", or the only one; None
    where that leaves it open."""
    template = tokenizer.chat_template
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if not isinstance(template, dict):
        return template
    only = next(iter(template.values())) if len(template) == 1 else None
    return template.get("default", only)


def _from_gguf(file: GGUFFile) -> PreTrainedTokenizerBase:
    with _said_in_one_line(file.path):
        tokenizer = build_tokenizer(
            file.metadata, where=str(file.path), max_positions=file.config.max_positions
        )
    keep_generation(tokenizer, gguf_generation(file.metadata))
    return tokenizer


@contextmanager
def _said_in_one_line(source: Path) -> Iterator[None]:
    """Turn whatever transformers and tokenizers raise for files that are missing, cut, or
    contradict each other, or for a package that they lack, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # A panic of the tokenizers library is no Exception, and Ctrl-C is none of its own.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = " ".join(str(error).split())
        packages = [name for name in _SLOW_PACKAGES if name in text.lower()]
        remedy = "Download its files again."
        if packages and not (source / "tokenizer.json").is_file():
            remedy = (
                "It has no tokenizer.json: copy that of the same model, or run `pip install"
                f" {' '.join(_SLOW_PACKAGES)}` to have it made."
            )
        raise UserError(
            f"{source}: the tokenizer cannot be loaded ({text[:200]}). {remedy}"
        ) from error


def _from_directory(directory: Path) -> PreTrainedTokenizerBase:
    if not any(directory.glob("*token*")):
        raise UserError(
            f"{directory}: there are no tokenizer files (tokenizer.json, tokenizer_config.json)."
            " Copy them from the model this one was made from."
        )
    _require_side_files(directory)
    # tokenizer.json says all there is to say. AutoTokenizer would rebuild the tokenizers of some
    # families (Qwen2, Llama) from the vocabulary alone, whatever the file's splitting rules are.
    complete = (directory / "tokenizer.json").is_file()
    loader = PreTrainedTokenizerFast if complete else AutoTokenizer
    with _said_in_one_line(directory):
        tokenizer = loader.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"{directory}: there is only a slow tokenizer. Save it once with transformers as"
            " tokenizer.json."
        )
    keep_generation(tokenizer, directory_generation(directory))
    return tokenizer


def _require_side_files(directory: Path) -> None:
    """Raise UserError for what has the name of a file that says something of the model, and is
    none: a link that leads nowhere, as of a download that was cut, would be taken for no file."""
    for entry in sorted(directory.iterdir()):
        if entry.suffix in _SIDE_FILES and not entry.is_file():
            raise UserError(
                f"{entry}: there is no file behind this name (a link that leads nowhere, a folder "
                "or a pipe). Download it again, or remove it."
            )


def _template_text(chat_template: Path | str, source: Path) -> str:
    """The template, from a file or as given: a template holds `{{` or `{%`, a path does not."""
    text = str(chat_template)
    if text == PLAIN:
        return PLAIN_TEMPLATE
    if "{{" in text or "{%" in text:
        return text
    try:
        path = Path(text).expanduser()
        require_regular(path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"chat_template {text}: cannot be read"
            f" ({error.strerror if isinstance(error, OSError) else error}), for the model {source}."
            " Give a Jinja file in UTF-8, or the template's text."
        ) from error
