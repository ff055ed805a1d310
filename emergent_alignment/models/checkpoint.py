"""From tensors in files to the parameter tree, one leaf at a time; the safetensors source.

The GGUF source is in `gguf_file.py`. Nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.family import Parameter, TreePath

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

Index = tuple[slice, ...]
# place(path, shape, read): puts a leaf on devices; read(index) gives any part of it.
PlaceArray = Callable[[TreePath, tuple[int, ...], Callable[[Index], np.ndarray]], jax.Array]
HoldArray = Callable[[TreePath, jax.Array], dict[TreePath, jax.Array]]

_MOST_JSON_BYTES = 1 << 27
# What NumPy knows of the formats that safetensors' headers name.
_KNOWN_FORMATS = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "BOOL",
    *(f"{k}{n}" for k in "IU" for n in (8, 16, 32, 64)),
)
_FLOATS = tuple(np.dtype(kind) for kind in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16))


class TensorSource(Protocol):
    """Where tensors come from, under Hugging Face's names and in its layout ([out, in] kernels)."""

    def names(self) -> Collection[str]:
        """Every tensor there is."""

    def where(self, name: str) -> str:
        """The file that holds this tensor, or would; for errors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""

    def read(self, name: str, part: Index) -> np.ndarray:
        """A part of one tensor, in a floating dtype; no more of it is read where that can be."""


def read_parameters(
    source: TensorSource,
    config: ModelConfig,
    *,
    dtype: Any,
    place: PlaceArray | None = None,
    hold: HoldArray | None = None,
) -> dict[str, Any]:
    """Fill the parameter tree of `models/names.py`, leaf by leaf.

    At the worst moment this machine's memory holds the leaves already placed, one stacked leaf,
    and one tensor; devices hold what is made of the leaves before, and one as it was read.

    Args:
        source: the tensors.
        config: says which tensors there must be, and their shapes.
        dtype: of every parameter, whatever the files hold.
        place: puts a leaf on devices, reading what it needs of it; by default the whole leaf,
            on JAX's default device.
        hold: what is kept of a leaf that is placed, by path; by default the leaf.

    Returns:
        A nested dict of jax arrays.

    Raises:
        UserError: naming the tensor that is missing, has another shape, or has no place in this
            architecture.
    """
    check_tensors(source, config)
    shapes = names.parameter_shapes(config)
    leaves = {}
    for path, name in names.tensor_names(config).items():
        read = functools.partial(_read_leaf, source, name, shapes[path], np.dtype(dtype))
        # Transfers are asynchronous: without waiting, two leaves would lie in host memory.
        # The leaf as it was read has no name here, so that it goes before the next one comes.
        placed = functools.partial(place or _place_whole, path, shapes[path], read)
        leaves |= jax.block_until_ready({path: placed()} if hold is None else hold(path, placed()))
    return traverse_util.unflatten_dict(leaves)


def check_tensors(source: TensorSource, config: ModelConfig) -> None:
    """Compare names and shapes with the config before anything is read.

    Raises:
        UserError: for the first tensor that is missing, misshapen, or unexpected.
    """
    held, expected = set(source.names()), set()
    for name, shape in _expected_tensors(config):
        expected.add(name)
        if name not in held:
            field = " (tie_word_embeddings)" if name == "lm_head.weight" else ""
            raise UserError(
                f"{source.where(name)}: tensor {name} is missing, which a {config.family} model of"
                f" {config.num_layers} layers needs. Download the model again, or correct its"
                f" config{field}."
            )
        stored = tuple(source.shape(name))
        if stored != shape:
            raise UserError(
                f"{source.where(name)}: tensor {name} has shape {list(stored)}, but the config asks"
                f" for {list(shape)}. Use the config that belongs to these weights."
            )
    unexpected = sorted(name for name in held - expected if not _ignorable(name, config))
    if unexpected:
        raise UserError(
            f"{source.where(unexpected[0])}: {len(unexpected)} tensors have no place in a"
            f" {config.family} model of {config.num_layers} layers, the first being"
            f" {unexpected[0]}. Use the config that belongs to these weights."
        )


def _expected_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of each tensor that the files of such a model hold."""
    shapes = names.parameter_shapes(config)
    for path, row in names.tensor_names(config).items():
        for name, _ in row.files(config):
            yield name, names.file_shape(row, shapes[path])


def _ignorable(name: str, config: ModelConfig) -> bool:
    """Whether a tensor carries nothing: an old rotary buffer, a copy of a tied embedding."""
    tied_copy = config.tie_embeddings and name == "lm_head.weight"
    return tied_copy or name.endswith("rotary_emb.inv_freq")


def _place_whole(path: TreePath, shape: tuple[int, ...], read: Callable) -> jax.Array:
    return jax.device_put(read(tuple(slice(0, size) for size in shape)))


def _read_leaf(
    source: TensorSource,
    name: Parameter,
    shape: tuple[int, ...],
    dtype: np.dtype,
    index: Index,
) -> np.ndarray:
    """A part of one leaf in `dtype`, assembled from its tensors: one a layer if stacked, and one
    an expert of each."""
    spans = [range(size)[cut] for size, cut in zip(shape, index)]
    leaf = np.empty([len(span) for span in spans], dtype)
    part = tuple(slice(span.start, span.stop) for span in spans[name.leading :])
    for place in np.ndindex(leaf.shape[: name.leading]):
        file_name = name.name(tuple(span[at] for span, at in zip(spans, place)))
        tensor = source.read(file_name, name.part_in_file(part, shape[-1]))
        if tensor.dtype not in _FLOATS:
            raise UserError(
                f"{source.where(file_name)}: tensor {file_name} holds {tensor.dtype} numbers, so"
                " these weights are quantised. Choose the float32, bfloat16 or float16 weights, or"
                " a .gguf file."
            )
        leaf[place] = name.taken(tensor)
    return leaf


class SafetensorsSource:
    """The tensors of a directory: `model.safetensors`, or else the shards that its index lists."""

    def __init__(self, directory: Path):
        """Open the index and every shard's header; tensors are read later, one by one.

        Raises:
            UserError: for a missing, empty, cut or corrupt file, for pickled weights, and for
                numbers in formats such as float8.
        """
        self._directory = directory
        files = _shard_files(directory)
        self._opened = {path: _open(path) for path in dict.fromkeys(files.values())}
        self._file_of: dict[str, Path] = {}
        for path, handle in self._opened.items():
            for name in handle.keys():
                self._file_of[name] = path
                _require_known(path, name, handle.get_slice(name).get_dtype())
        for name, path in files.items():
            if name and name not in self._file_of:
                raise UserError(
                    f"{path}: tensor {name} is missing, though {INDEX_FILE} says it is here. "
                    "Download this file again."
                )

    def names(self) -> Collection[str]:
        """Every tensor there is."""
        return self._file_of.keys()

    def where(self, name: str) -> str:
        """The shard that holds the tensor, or the directory if none does."""
        return str(self._file_of.get(name, self._directory))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, read from its shard's header."""
        return tuple(self._opened[self._file_of[name]].get_slice(name).get_shape())

    def read(self, name: str, part: Index) -> np.ndarray:
        """A part of one tensor, in the dtype it is stored in; only that is read from the disk.

        Raises:
            UserError: when the shard cannot be read, or holds a number format numpy does not know.
        """
        path = self._file_of[name]
        try:
            return self._opened[path].get_slice(name)[part]
        except (SafetensorError, OSError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: tensor {name} cannot be read ({_one_line(error)}). Download this file"
                " again."
            ) from error


def _shard_files(directory: Path) -> dict[str, Path]:
    """{"": model.safetensors} where there is one, which goes before an index as in transformers, or
    the file of each tensor by the index."""
    if (directory / SINGLE_FILE).is_file():
        return {"": directory / SINGLE_FILE}
    index = directory / INDEX_FILE
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{index}: weight_map is missing or empty. Download this file again.")
        # A shard is named, not located: an index from elsewhere must not lead out of its directory.
        return {name: directory / Path(str(shard)).name for name, shard in weight_map.items()}
    pickled = sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pt*"))
    if pickled:
        raise UserError(
            f"{directory}: the weights are only in {pickled[0].name}, a pickle, which is never"
            " read. Convert them where you trust them: transformers'"
            " AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors."
        )
    raise UserError(
        f"{directory}: there is neither {SINGLE_FILE} nor {INDEX_FILE}. Give a directory with"
        " safetensors, a .gguf file, or a hub id."
    )


def _require_known(path: Path, name: str, stored: str) -> None:
    if stored not in _KNOWN_FORMATS:
        width = "float8" if stored.startswith("F8") else "another format"
        raise UserError(
            f"{path}: tensor {name} is stored as {stored} ({width}), so these weights are"
            " quantised. Choose the float32, bfloat16 or float16 weights, or a .gguf file."
        )


def _open(path: Path) -> Any:
    """A handle on one safetensors file, whose header has been checked against the file's length."""
    if not path.is_file():
        raise UserError(f"{path}: the file is missing, though {INDEX_FILE} names it. Download it.")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a complete safetensors file ({_one_line(error)}; it has"
            f" {path.stat().st_size} bytes). Download it again; in a git clone, run `git lfs pull`."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: when the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise UserError(f"{path}: it is larger than any such file. Download it again.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the file is missing. Download it, or give another directory."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}: not JSON ({error.msg}). Download it again."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not text in UTF-8 ({error.reason}). Download it again."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deep nesting
        raise UserError(
            f"{path}: not JSON that can be read ({_one_line(error)[:80]}). Download it again."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: it cannot be read ({error.strerror}). Make it readable, or download it again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: it must hold a JSON object {{…}}. Download it again.")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
