"""Write a model for other tools: a Hugging Face directory, or a PEFT adapter.

Both appear under their final name only when complete, and never over something that is there. Of
several hosts that hold parts of a model, all call these functions, and the first one writes: a
tensor at a time, so that none ever holds the whole.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from transformers import PreTrainedTokenizerBase

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.checkpoint import INDEX_FILE, SINGLE_FILE
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.family import Parameter
from emergent_alignment.models.generation_config import FILE as GENERATION_FILE
from emergent_alignment.models.generation_config import end_tokens_of, generation_of
from emergent_alignment.models.tensor_file import Tensor, write_tensor_file
from emergent_alignment.parallel.hosts import is_first, together, whole
from emergent_alignment.storage.files import is_whole_folder, whole_folder, write_json, write_whole
from emergent_alignment.storage.json_values import without_none

_PEFT_PREFIX = "base_model.model."


def write_safetensors(
    directory: Path | str,
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_shard_bytes: int = 5 * 10**9,
    end_token_ids: Sequence[int] | None = None,
    card: str = "",
) -> Path:
    """Write a directory that transformers and `read_model` load: weights, configs, tokenizer.

    Args:
        directory: must not exist, or be empty.
        config: the model's.
        params: the tree of `models/names.py`, in the dtype to write; adapters merged in.
        tokenizer: saved beside the weights, with its chat template.
        max_shard_bytes: a shard is closed before it would exceed this.
        end_token_ids: by default those of the checkpoint that the tokenizer is from, whose
            generation_config.json is written again with all else that it says.
        card: the text of the model card, README.md; "" for none.

    Returns:
        The directory.

    Raises:
        UserError: when the directory is in use or cannot be written; nothing is left of it then.
        ValueError: when `params` is not the parameter tree of `config`.
    """
    tensors = _model_tensors(config, params)
    dtype = np.dtype(jax.tree.leaves(params)[0].dtype).name
    ends = list(end_token_ids or end_tokens_of(tokenizer))
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    content = config.to_huggingface(**special, dtype=dtype)
    stated = without_none(generation_of(tokenizer))
    generation = without_none(special) | stated | {"eos_token_id": special["eos_token_id"]}
    if not _writes(Path(directory), tensors):
        return Path(directory)
    with _unfinished(Path(directory)) as unfinished:
        _write_card(unfinished, card)
        _write_tokenizer(unfinished, tokenizer)
        write_json(unfinished / "config.json", content, indent=2)
        write_json(unfinished / GENERATION_FILE, without_none(generation), indent=2)
        _write_shards(unfinished, tensors, max_shard_bytes)
    return Path(directory)


def write_peft(
    directory: Path | str,
    config: ModelConfig,
    adapters: Mapping[str, Mapping[str, Any]],
    *,
    rank: int,
    alpha: float,
    rank_stabilized: bool,
    base_name: str,
    card: str = "",
) -> Path:
    """Write LoRA adapters as `peft.PeftModel.from_pretrained` loads them.

    Args:
        directory: must not exist, or be empty.
        config: of the base model.
        adapters: {"query": {"a": [L, in, rank], "b": [L, rank, out]}, …} for any of the seven
            projections; the effective kernel is kernel + scale · a b, with the scale not yet in b.
        rank: r.
        alpha: the scale is alpha / r, or alpha / √r if `rank_stabilized`.
        rank_stabilized: see above.
        base_name: what the base model is called, a path or hub id.
        card: the text of the model card, README.md; "" for none.

    Returns:
        The directory.

    Raises:
        UserError: when the directory is in use or cannot be written; nothing is left of it then.
        ValueError: when `adapters` does not fit `config` and `rank`.
    """
    modules = _by_module(config, adapters)
    tensors = _adapter_tensors(config, modules, adapters, rank)
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": rank_stabilized,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted(map(_last, modules)),
        **_patterns(modules, rank, alpha, rank_stabilized),
    }
    if not _writes(Path(directory), tensors):
        return Path(directory)
    with _unfinished(Path(directory)) as unfinished:
        _write_card(unfinished, card)
        write_tensor_file(unfinished / "adapter_model.safetensors", tensors)
        write_json(unfinished / "adapter_config.json", content, indent=2)
    return Path(directory)


def _writes(directory: Path, tensors: Sequence[Tensor]) -> bool:
    """Whether this host writes; any other one has then done its part in making the tensors."""
    with together():
        if is_first():
            require_unused(directory)
    if is_first():
        return True
    for tensor in tensors:
        tensor.make()
    return False


@contextlib.contextmanager
def _unfinished(directory: Path) -> Iterator[Path]:
    """The folder to write into, which takes the final name if the body succeeds."""
    try:
        with whole_folder(directory) as unfinished:
            yield unfinished
    except OSError as error:
        raise UserError(
            f"{directory}: it cannot be written ({error.strerror or error}). Free some space or"
            " choose another directory."
        ) from error


def require_unused(directory: Path | str) -> None:
    """Check that an export would overwrite nothing; worth doing before a long training run.

    Raises:
        UserError: when `directory` is a file or a directory with something in it.
    """
    directory = Path(directory)
    if is_whole_folder(directory):
        raise UserError(
            f"{directory}: the directory is not empty, and exports never overwrite. Choose another"
            " name."
        )
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: there is a file of this name. Choose another name.")


def _model_tensors(config: ModelConfig, params: Mapping[str, Any]) -> list[Tensor]:
    """Every tensor of the model under its Hugging Face name, one a layer."""
    leaves = traverse_util.flatten_dict(params)
    shapes = names.parameter_shapes(config)
    given = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    if given != shapes:
        wrong = sorted(path for path in {*given, *shapes} if given.get(path) != shapes.get(path))
        path = wrong[0]
        raise ValueError(
            f"params at {'.'.join(path)}: expected {shapes.get(path)}, found {given.get(path)}"
        )
    parts: dict[str, list[tuple[Parameter, Any, tuple[int, ...]]]] = {}
    for path, row in names.tensor_names(config).items():
        for name, index in row.files(config):
            parts.setdefault(name, []).append((row, leaves[path], index))
    return [_file_tensor(name, own) for name, own in parts.items()]


def _file_tensor(name: str, parts: Sequence[tuple[Parameter, Any, tuple[int, ...]]]) -> Tensor:
    """What a leaf has at an index, or what several have there that are one tensor in files."""
    parts = sorted(parts, key=lambda part: part[0].turn)
    made = [functools.partial(_to_host, leaf, at, row.transposed) for row, leaf, at in parts]
    row, leaf, _ = parts[0]
    shape = names.file_shape(row, leaf.shape)
    return Tensor(name, shape, np.dtype(leaf.dtype), lambda: row.joined([make() for make in made]))


def _by_module(config: ModelConfig, adapted: Iterable[str]) -> dict[str, list[Parameter]]:
    """The rows of the kernels beside which adapters stand, by the module that PEFT knows: several
    where files hold them in one tensor. Raises UserError for experts, which it has no names for."""
    rows = {row.path[-2]: row for row in names.tensor_names(config).values() if row.adapted}
    modules: dict[str, list[Parameter]] = {}
    for name in adapted:
        if rows[name].of_experts:
            raise UserError(
                f"adapters beside {name}: PEFT has no names for those of experts. Export the whole"
                " model, with the adapters merged in (format safetensors)."
            )
        modules.setdefault(rows[name].module, []).append(rows[name])
    return modules


def _patterns(
    modules: Mapping[str, list[Parameter]], rank: int, alpha: float, rank_stabilized: bool
) -> dict[str, dict[str, float]]:
    """Ranks of modules with several adapters, and each α by which they are scaled as one alone."""
    several = {_last(module): len(rows) for module, rows in modules.items() if len(rows) > 1}
    return {
        "rank_pattern": {name: count * rank for name, count in several.items()},
        "alpha_pattern": {
            name: alpha * (count**0.5 if rank_stabilized else count)
            for name, count in several.items()
        },
    }


def _last(module: str) -> str:
    return module.split(".")[-1]


def _adapter_tensors(
    config: ModelConfig,
    modules: Mapping[str, list[Parameter]],
    adapters: Mapping[str, Mapping[str, Any]],
    rank: int,
) -> list[Tensor]:
    """The tensors of a PEFT file: A is [rank, in] and B is [out, rank], one of each a layer. Of
    several adapters beside a tensor A has all, and B each one's own columns of the tensor."""
    sizes = names.projection_sizes(config)
    tensors = []
    for module, rows in modules.items():
        for row in rows:
            _check_adapter(row.path[-2], adapters, sizes, config.num_layers, rank)
        own = [(row, adapters[row.path[-2]]) for row in rows]
        inputs, outputs = sizes[rows[0].path[-2]]
        shapes = {
            "A": (len(rows) * rank, inputs),
            "B": (rows[0].turns * outputs, len(rows) * rank),
        }
        for factor, made in (("A", _down), ("B", _up)):
            for layer in range(config.num_layers):
                name = f"{_PEFT_PREFIX}model.layers.{layer}.{module}.lora_{factor}.weight"
                dtype = np.dtype(own[0][1][factor.lower()].dtype)
                make = functools.partial(made, own, layer)
                tensors.append(Tensor(name, shapes[factor], dtype, make))
    return tensors


def _check_adapter(name: str, adapters: Mapping, sizes: Mapping, layers: int, rank: int) -> None:
    inputs, outputs = sizes[name]
    for factor, shape in (("a", (layers, inputs, rank)), ("b", (layers, rank, outputs))):
        found = tuple(adapters[name][factor].shape)
        if found != shape:
            raise ValueError(f"adapters at {name}.{factor}: expected {shape}, found {found}")


def _down(own: Sequence[tuple[Parameter, Mapping]], layer: int) -> np.ndarray:
    return np.concatenate([_to_host(factors["a"], (layer,), True) for _, factors in own])


def _up(own: Sequence[tuple[Parameter, Mapping]], layer: int) -> np.ndarray:
    """B: each adapter's columns, and zeros where the tensor has those of other kernels."""
    made = [(row.turn, _to_host(factors["b"], (layer,), True)) for row, factors in own]
    columns = [
        np.concatenate([b if turn == at else np.zeros_like(b) for at, b in made], axis=1)
        for turn in range(own[0][0].turns)
    ]
    return np.concatenate(columns)


def _to_host(leaf: Any, index: tuple[int, ...], transposed: bool) -> np.ndarray:
    """One tensor of a leaf, in the layout of files."""
    tensor = whole(leaf[index] if index else leaf)
    return tensor.T if transposed else tensor


def _write_shards(directory: Path, tensors: Sequence[Tensor], max_shard_bytes: int) -> None:
    """One model.safetensors, or numbered shards with an index."""
    shards = _split(tensors, max_shard_bytes)
    if len(shards) == 1:
        write_tensor_file(directory / SINGLE_FILE, shards[0])
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensor_file(directory / file_name, shard)
        weight_map |= {tensor.name: file_name for tensor in shard}
    total = sum(tensor.size_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / INDEX_FILE, index, indent=2)


def _split(tensors: Sequence[Tensor], max_shard_bytes: int) -> list[list[Tensor]]:
    """Consecutive runs of tensors within the limit; a tensor above it gets a shard of its own."""
    shards: list[list[Tensor]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + tensor.size_bytes > max_shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.size_bytes
    return shards


def _write_card(directory: Path, card: str) -> None:
    if card:
        write_whole(directory / "README.md", card)


def _write_tokenizer(directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's files; a generic class gets the name that transformers 4 and 5 both know."""
    try:
        tokenizer.save_pretrained(directory)
    except Exception as error:  # the tokenizers library has no other for a disk that is full
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error
    path = directory / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, content | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2)
