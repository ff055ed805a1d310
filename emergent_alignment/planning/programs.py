"""What a run holds, and its training step, for shapes alone: no weights, no devices, nothing runs.
What a round of listening runs is in listening_programs.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from emergent_alignment.data.batches import ROLES, Batch
from emergent_alignment.models import ideal
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.cache import KEY_VALUE_AXES, Block, empty_block
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.frozen import hold_frozen
from emergent_alignment.models.model import Model, random_params
from emergent_alignment.models.placement import check_mesh
from emergent_alignment.parallel.sharding import num_shards, sharding
from emergent_alignment.planning.hlo import KernelFlops, no_kernels
from emergent_alignment.planning.kernels import splash_flops
from emergent_alignment.planning.topologies import Target
from emergent_alignment.runs.config import RunConfig, decided
from emergent_alignment.runs.from_config import (
    Setup,
    check_rows,
    lora_config,
    mesh_of,
)
from emergent_alignment.runs.given_pairs import given_rows
from emergent_alignment.runs.listening_inputs import (
    POOL,
    TASK,
    heard_rows,
    listens_apart,
    prompt_objective,
)
from emergent_alignment.runs.step_inputs import TARGET_ROLES
from emergent_alignment.runs.training_run import hybrid_terms, step_settings
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.state import TrainState, initial_state
from emergent_alignment.training.step import compiled_step, step_shardings
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.task_and_pairs import TaskAndPairs


@dataclass(frozen=True)
class Held:
    """What lies on the devices all the time, as shapes with shardings."""

    config: RunConfig
    model: ModelConfig
    mesh: Mesh | None
    device: Any
    settings: StepSettings
    state: TrainState
    frozen: dict

    @property
    def policy(self) -> dict:
        """The policy's parameters, as the sampler gets them (models/lora.attach)."""
        if self.settings.lora is None:
            return self.state.trainable
        return self.frozen | {"adapters": self.state.trainable}

    def rows(self, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        """An array that is cut by rows."""
        return self.placed(shape, dtype, "batch")

    def placed(self, shape: tuple[int, ...], dtype: Any, *axes: str | None) -> jax.ShapeDtypeStruct:
        """An array with these logical axes."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._place(*axes))

    def whole(self, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        """An array that every device has."""
        return self.placed(shape, dtype)

    def _place(self, *axes: str | None):
        if self.mesh is None:
            return SingleDeviceSharding(self.device)
        return sharding(self.mesh, axes)

    @property
    def row_shards(self) -> int:
        """Into how many parts rows are cut."""
        return num_shards(self.mesh, "batch")

    @property
    def tensor_shards(self) -> int:
        """Into how many parts heads and columns are cut."""
        return num_shards(self.mesh, "heads")

    @property
    def expert_shards(self) -> int:
        """Into how many parts the experts of a layer are cut."""
        return num_shards(self.mesh, "experts")

    def block(self, rows: int, slots: int, *, whole: bool = False) -> Block:
        """Keys and values of so many tokens a row (models/cache.py), as shapes with shardings."""
        given = self.model, rows, 1, slots, self.settings.dtype
        empty = jax.eval_shape(lambda: empty_block(*given, whole=whole))
        keys, values = jax.tree.map(
            lambda x: self.placed(x.shape, x.dtype, *KEY_VALUE_AXES), (empty.keys, empty.values)
        )
        return Block(keys, values, jax.tree.map(lambda x: self.rows(x.shape), empty.positions))

    def cache_bytes(self, *blocks: Block) -> int:
        """Keys and values of these blocks on each chip."""
        shards = self.tensor_shards * self.row_shards
        leaves = jax.tree.leaves([(block.keys, block.values) for block in blocks])
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // shards


@dataclass(frozen=True)
class Program:
    """One jitted function and the shapes it is called with.

    lower        makes jax's Lowered
    ideal_flops  of one call, on all devices (models/ideal.py)
    arguments    which of the held trees it reads: "trainable", "optimizer", "frozen"
    cache_bytes  of keys and values on each chip
    trips        of loops that data end, at their longest
    kernel_flops see hlo.program_cost
    """

    name: str
    shape: str
    lower: Callable[[], Any]
    ideal_flops: float
    arguments: tuple[str, ...]
    cache_bytes: int = 0
    trips: tuple[int, ...] = ()
    kernel_flops: KernelFlops = no_kernels


def held(config: RunConfig, model: ModelConfig, target: Target) -> Held:
    """Parameters, frozen copy and optimizer state of a run, cut over the target's mesh. Raises
    UserError where the mesh does not fit the devices, the model or the batch."""
    config = decided(config, listens_to=POOL if config.application == "finetuning" else TASK)
    mesh = mesh_of(config, model, target.devices, target.chip.hbm_bytes)
    check_mesh(mesh, model, config.model.frozen_dtype)
    check_rows(config, mesh)
    param_dtype = jnp.dtype(config.model.param_dtype)
    params = jax.eval_shape(lambda: random_params(model, dtype=param_dtype))
    frozen = jax.eval_shape(lambda tree: hold_frozen(tree, config.model.frozen_dtype), params)
    lora = lora_config(config)
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    start = frozen if lora is not None else params
    state = jax.eval_shape(lambda tree: initial_state(tree, lora, optimizer, config.seed), start)
    alone = SingleDeviceSharding(target.devices[0])
    places = step_shardings(mesh, state, frozen)
    if places is None:
        places = jax.tree.map(lambda leaf: alone, (state, frozen))

    def placed(leaf, place):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    state, frozen = jax.tree.map(placed, (state, frozen), places)
    setup = Setup(config, Model(model, None, frozen), None, mesh)
    attention = "blocks" if target.compiled_for_cpu else "splash"
    settings = replace(step_settings(config, setup), attention=attention)
    return Held(config, model, mesh, target.devices[0], settings, state, frozen)


def training_step(run: Held, target: Target) -> Program:
    """The step as the loop calls it, with reference log-probs where the conscience brings them."""
    config = run.config
    layout, roles = largest_batch(config)
    rows = config.training.batch_size
    reviewed = config.conscience.enabled
    batch = _batch(run, rows, layout, roles, reviewed and roles != "task")
    # Without the conscience there are no pairs, and so no reference to compute either.
    ideal_flops = ideal.step_flops(run.model, layout, rows, run.settings.lora, with_reference=True)
    if apart := pairs_apart(config):
        pairs_layout, num_pairs = apart
        pairs = _batch(run, num_pairs, pairs_layout, "no target", True)
        given = run.model, pairs_layout, num_pairs, run.settings.lora
        of_pairs = ideal.step_flops(*given, with_reference=True)
        batch = TaskAndPairs(batch, pairs) if config.data.train else pairs
        ideal_flops = of_pairs + ideal_flops * bool(config.data.train)
        if not config.data.train:
            rows, layout = num_pairs, pairs_layout
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    places = step_shardings(run.mesh, run.state, run.frozen)
    objective = prompt_objective(config) or Objective(hybrid_terms(config.loss))
    step = compiled_step(run.settings, optimizer, places, objective)
    return Program(
        "training step",
        f"{rows} rows of {layout.prompt} + {layout.branches} × {layout.branch} tokens, "
        f"{config.training.accumulation} microbatches",
        lambda: step.lower(run.state, run.frozen, batch),
        ideal_flops,
        (*policy_arguments(run), "optimizer"),
        kernel_flops=no_kernels if target.compiled_for_cpu else splash_flops(layout),
    )


def pairs_apart(config: RunConfig) -> tuple[PrefixLayout, int] | None:
    """The layout and the number of a step's rows that have pairs alone, at their longest; None
    where there are none."""
    rows, longest = given_rows(config), 0
    if rows:
        longest = config.data.max_response_tokens
    if listens_apart(config):
        rows += heard_rows(config, config.training.batch_size if config.data.train else 0)
        longest = max(longest, config.sampling.max_new_tokens)
    return (PrefixLayout(config.data.max_prompt_tokens, 2, longest), rows) if rows else None


def _batch(run: Held, rows: int, layout: PrefixLayout, roles: str, with_reference: bool) -> Batch:
    return Batch(
        run.rows((rows, layout.prompt)),
        run.rows((rows,)),
        run.rows((rows, layout.branches, layout.branch)),
        run.rows((rows, layout.branches)),
        run.rows((rows,), jnp.bool_),
        run.rows((rows, 2), jnp.float32) if with_reference else None,
        ROLES[roles],
    )


def largest_batch(config: RunConfig) -> tuple[PrefixLayout, str]:
    """(layout, roles) of the largest batch the config allows: prompts and answers at their limits
    (runs/step_inputs.py)."""
    longest = config.data.max_response_tokens
    roles = "task"
    if config.conscience.enabled and not listens_apart(config):
        longest = max(longest, config.sampling.max_new_tokens)
        conscience = config.conscience
        reviews_targets = conscience.candidate == "target"
        roles = TARGET_ROLES[conscience.on_flagged] if reviews_targets else "separate"
    return PrefixLayout(config.data.max_prompt_tokens, ROLES[roles].num_branches, longest), roles


def filled(rows: int, shards: int) -> int:
    return -(-rows // shards) * shards


def policy_arguments(run: Held) -> tuple[str, ...]:
    return ("trainable",) if run.settings.lora is None else ("trainable", "frozen")
