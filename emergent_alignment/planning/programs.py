"""The programs of a run, for shapes alone: no weights, no devices, nothing runs.

Training step, prefill and decoding of the policy's samples, and a review by the frozen copy; each
in the largest shape that the config allows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from emergent_alignment.conscience.reader import WIDTH_STEP
from emergent_alignment.conscience.review import WORD_TOKENS_STEP, word_margins
from emergent_alignment.data.batches import ROLES, Batch, bucket
from emergent_alignment.generation.prefill import Prompts, prefill
from emergent_alignment.generation.sampler import Sampler, decode, sampler_settings, stages
from emergent_alignment.models import ideal
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.frozen import hold_frozen
from emergent_alignment.models.model import Model, random_params
from emergent_alignment.models.placement import check_mesh
from emergent_alignment.parallel.mesh import make_mesh
from emergent_alignment.parallel.sharding import num_shards, sharding
from emergent_alignment.planning.hlo import KernelFlops, no_kernels
from emergent_alignment.planning.kernels import splash_flops
from emergent_alignment.planning.topologies import Target
from emergent_alignment.runs.config import RunConfig, decided
from emergent_alignment.runs.from_config import (
    Setup,
    check_rows,
    conscience_settings,
    lora_config,
)
from emergent_alignment.runs.given_pairs import given_rows
from emergent_alignment.runs.listening_inputs import (
    POOL,
    TASK,
    heard_rows,
    heard_size,
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
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._place("batch"))

    def whole(self, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        """An array that every device has."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._place())

    def _place(self, *axes: str):
        if self.mesh is None:
            return SingleDeviceSharding(self.device)
        return sharding(self.mesh, axes)

    @property
    def row_shards(self) -> int:
        """Into how many parts rows are cut."""
        return 1 if self.mesh is None else num_shards(self.mesh, "batch")

    @property
    def tensor_shards(self) -> int:
        """Into how many parts heads and columns are cut."""
        return 1 if self.mesh is None else num_shards(self.mesh, "heads")

    def cache_bytes(self, rows: int, slots: int) -> int:
        """Keys and values of all layers on each chip."""
        model, shards = self.model, self.tensor_shards * self.row_shards
        numbers = 2 * model.num_layers * model.num_kv_heads * model.head_dim * rows * slots
        return numbers * jnp.dtype(self.settings.dtype).itemsize // shards


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
    mesh = make_mesh(config.mesh.sizes(), target.devices)
    check_mesh(mesh, model)
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
        (*_policy_arguments(run), "optimizer"),
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


def prefill_program(run: Held) -> Program:
    """Reading the prompts that the policy is to answer."""
    rows, width = sampled_rows(run), run.config.data.max_prompt_tokens
    return Program(
        "prefill",
        f"{rows} prompts of {width} tokens",
        lambda: prefill.lower(
            run.model,
            run.policy,
            run.rows((rows, width)),
            run.rows((rows,)),
            None,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows, 0, width, 0),
        _policy_arguments(run),
        run.cache_bytes(rows, width),
    )


def decode_program(run: Held, prompts: Prompts) -> Program:
    """Sampling on top of what prefill returned (`prompts`, as shapes with shardings), to the
    longest answer."""
    rows, longest = sampled_rows(run), run.config.sampling.max_new_tokens
    width = bucket(longest, WIDTH_STEP, 1 << 30)
    filled = stages(width)
    # The first token comes from the prefill; a stage runs until its slots are filled.
    ends = [min(slots, width - 1) for slots in filled]
    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return Program(
        "decoding",
        f"{rows} answers of {width} tokens",
        lambda: decode.lower(
            run.model,
            run.policy,
            prompts,
            Sampler(sampler_settings((0,), width), run.rows((rows, 1), key)),
            run.rows((rows,), jnp.bool_),
            width=width,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(
            run.model, rows, run.config.data.max_prompt_tokens, width - 1, width - 1
        ),
        _policy_arguments(run),
        run.cache_bytes(rows, run.config.data.max_prompt_tokens + width),
        trips=tuple(np.diff([0, *ends]).tolist()),
    )


def review_program(run: Held) -> Program:
    """The conscience's verdict on whole quoted reviews, at their longest, nothing of them read
    before (a run reads what reviews have in common once)."""
    conscience = run.config.conscience
    rows, width = _filled(conscience.batch_size, run.row_shards), conscience.max_review_tokens
    forms = len(conscience_settings(run.config).review.forms)
    nothing = Prompts(
        (), run.whole((1,)), run.whole((1, run.model.hidden_size), run.settings.dtype)
    )
    words = run.whole((forms, WORD_TOKENS_STEP))
    return Program(
        "review",
        f"{rows} reviews of {width} tokens, {forms} form{'s' if forms > 1 else ''} of the question",
        lambda: word_margins.lower(
            run.model,
            run.frozen,
            nothing,
            run.rows((rows, forms, width)),
            run.rows((rows, forms)),
            words,
            words,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows * forms, 0, width, 1),
        ("frozen",),
        run.cache_bytes(rows * forms, width),
    )


def sampled_rows(run: Held) -> int:
    """All prompts of a round are answered at once, each as often as the chain wants samples. Those
    of one prompt share what was read of it; here each counts as having read it, an upper bound."""
    conscience = run.config.conscience
    samples = conscience.samples if "best" in conscience.chain else 1
    return _filled(heard_size(run.config, run.config.training.batch_size) * samples, run.row_shards)


def _filled(rows: int, shards: int) -> int:
    return -(-rows // shards) * shards


def _policy_arguments(run: Held) -> tuple[str, ...]:
    return ("trainable",) if run.settings.lora is None else ("trainable", "frozen")
