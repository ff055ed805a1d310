"""From what a user names (path, hub id or "default") to config, parameters and tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from emergent_alignment.errors import UserError
from emergent_alignment.models.checkpoint import (
    HoldArray,
    PlaceArray,
    SafetensorsSource,
    read_json,
    read_parameters,
)
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.default_model import default_model
from emergent_alignment.models.families import WRAPPERS, family_of
from emergent_alignment.models.generation_config import directory_generation, gguf_generation
from emergent_alignment.models.gguf_file import GGUFFile
from emergent_alignment.models.mxfp4 import mxfp4_tensors
from emergent_alignment.models.text_tensors import text_tensors
from emergent_alignment.models.tokenizer import load_tokenizer
from emergent_alignment.models.tying import settle_tying
from emergent_alignment.storage.hub_errors import hub_failure

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Weights and text only: no pickles, no code.
_DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "tokenizer*", "merges*", "vocab*")
_NEVER_DOWNLOADED = ("*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*/*", "consolidated*")


def read_model(
    path_or_id: Path | str,
    *,
    dtype: Any,
    chat_template: Path | str | None = None,
    check: Callable[[ModelConfig], None] = lambda config: None,
    place: PlaceArray | None = None,
    hold: HoldArray | None = None,
) -> tuple[ModelConfig, dict[str, Any], PreTrainedTokenizerBase]:
    """Everything a model consists of.

    Args:
        path_or_id: a directory with safetensors, a .gguf file, a hub id, or "default".
        dtype: of the parameters.
        chat_template: a Jinja file, or a template's text, in place of the model's own.
        check: called with the config before anything large is read; may raise UserError.
        place: puts a parameter on devices (see `read_parameters`); by default on JAX's own.
        hold: what is kept of a parameter (see there); by default the parameter.

    Returns:
        The config, the parameter tree of `models/names.py`, and the tokenizer.

    Raises:
        UserError: for whatever is missing, broken or unsupported.
    """
    path = resolve(path_or_id)
    if path.suffix == ".gguf":
        source = file = GGUFFile(path)
        config, tokenizer_source = file.config, file
    else:
        config = _config_of(path)
        source, tokenizer_source = mxfp4_tensors(text_tensors(SafetensorsSource(path))), path
        config, source = settle_tying(config, source)
    check(config)
    # The tokenizer first: it fails in a second, where the weights may take minutes.
    tokenizer = load_tokenizer(tokenizer_source, chat_template=chat_template)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= config.vocab_size:
        # JAX would not complain: an index beyond the embedding reads its last row.
        raise UserError(
            f"{path}: the tokenizer has ids up to {largest}, but the embedding has only"
            f" {config.vocab_size} rows. Use the tokenizer that belongs to these weights."
        )
    params = read_parameters(source, config, dtype=dtype, place=place, hold=hold)
    return config, params, tokenizer


def read_model_config(path_or_id: Path | str) -> ModelConfig:
    """A model's sizes alone: a directory needs no more than its config.json, and of a hub id
    nothing else is downloaded. Raises UserError like `read_model`."""
    path = resolve(path_or_id, only=("config.json",))
    return GGUFFile(path).config if path.suffix == ".gguf" else _config_of(path)


def _config_of(directory: Path) -> ModelConfig:
    where = directory / "config.json"
    return ModelConfig.from_huggingface(read_json(where), where=str(where))


def holds_images(path_or_id: Path | str, config: ModelConfig) -> bool:
    """Whether the checkpoint is one of images, too, of which the text alone was read."""
    if not family_of(config).wrappers:
        return False
    path = resolve(path_or_id, only=("config.json",))
    if path.suffix == ".gguf":
        return False
    return read_json(path / "config.json").get("model_type") in WRAPPERS


def end_token_ids(path_or_id: Path | str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token that ends an answer, the tokenizer's own first, read from the checkpoint again.

    Chat models often have several. A directory states them in generation_config.json and
    config.json; a .gguf file states some, and there the known end-of-turn and end-of-text tokens of
    its vocabulary count too, as in llama.cpp. A tokenizer that was loaded knows them by itself
    (`models/generation_config.py`).
    """
    path = resolve(path_or_id)
    read = _gguf_generation if path.suffix == ".gguf" else directory_generation
    stated = read(path)["eos_token_id"]
    own = tokenizer.eos_token_id
    return tuple(dict.fromkeys([*([] if own is None else [own]), *stated]))


def _gguf_generation(path: Path) -> dict[str, Any]:
    return gguf_generation(GGUFFile(path).metadata)


def resolve(path_or_id: Path | str, only: tuple[str, ...] = _DOWNLOADED) -> Path:
    """A local directory or .gguf file for what the user named, downloading from the hub if need be.

    Of a hub id the files that match `only` are downloaded. "default" is the default model
    (`models/default_model.py`); a directory that holds a single .gguf file and no config.json
    stands for that file.

    Raises:
        UserError: when there is nothing of this name, or it cannot be downloaded.
    """
    text = str(path_or_id)
    if text == "default":
        return resolve(default_model())
    path = Path(text).expanduser()
    if path.is_file():
        return _checked_file(path)
    if path.is_dir():
        return _checked_directory(path)
    if isinstance(path_or_id, Path) or text.endswith(".gguf") or not _HUB_ID.fullmatch(text):
        raise UserError(f"{text}: there is no such directory or file. Correct the path.")
    return _download(text, only)


def findable_name(path_or_id: str) -> str:
    """What others find a model by that was named so: its hub id, or its absolute path."""
    if path_or_id == "default":
        return str(default_model().absolute())
    path = Path(path_or_id).expanduser()
    if not path.exists():
        return path_or_id
    # A snapshot in the hub's cache: models--owner--name/snapshots/revision.
    for folder in path.absolute().parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            return folder.parent.name.removeprefix("models--").replace("--", "/")
    return os.path.normpath(path.absolute())


def _checked_file(path: Path) -> Path:
    if path.suffix == ".gguf":
        return path
    if path.suffix == ".safetensors":
        raise UserError(
            f"{path}: give the directory that holds it, with its config.json and tokenizer."
        )
    raise UserError(
        f"{path}: supported are a directory with safetensors, a .gguf file, or a hub id; pickled"
        " weights (.bin, .pt) are never read. Choose one of these."
    )


def _checked_directory(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        raise UserError(
            f"{path}: it holds {len(files)} .gguf files. Give one of them, such as {files[0]}."
        )
    raise UserError(
        f"{path}: there is no config.json. Give a model directory, a .gguf file, or a hub id."
    )


def _download(hub_id: str, only: tuple[str, ...]) -> Path:
    """The hub's snapshot of a model in the local cache, from the cache alone when offline."""
    from huggingface_hub import errors, snapshot_download

    try:
        directory = snapshot_download(
            hub_id, allow_patterns=list(only), ignore_patterns=list(_NEVER_DOWNLOADED)
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{hub_id}: access to it must be asked for on its page. Then run `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{hub_id}: neither a local path nor a model on the hub. Correct the name; a private"
            " model needs `hf auth login`."
        ) from error
    except Exception as error:  # of several libraries, each with errors of its own
        before = f"{hub_id}: not a local path, and it cannot be downloaded: "
        raise hub_failure(before, error, "check the network, or give a local directory") from error
    return _checked_directory(Path(directory))
