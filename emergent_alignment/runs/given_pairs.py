"""Pairs that the user brings (config.data.preferences): read, tokenized, their reference log-probs
computed once, and the rows of each step, in the layout of pairs that a conscience finds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from emergent_alignment.conscience.journal import warn
from emergent_alignment.data.batches import Batch, Pair, make_batch, order_seed
from emergent_alignment.data.buckets import Schedule, choose_buckets
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.sources import LoadedPairs
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import gather_list, is_first
from emergent_alignment.parallel.mesh import row_axes
from emergent_alignment.parallel.rows import own_rows, to_devices, to_host
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.progress import progress
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.training_run import Run, step_settings
from emergent_alignment.storage.cache import cache_path
from emergent_alignment.storage.growing_file import GrowingFile
from emergent_alignment.storage.json_lines import append_json_lines, read_json_lines, trim_torn_line
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.shapes import Number
from emergent_alignment.training.branches import reference_log_probs
from emergent_alignment.training.state import fingerprint

_ROLES = "no target"
_ORDER = (1 << 16) + 3  # what their order is seeded with, beside the run's seed (see own_rows.py)
_KEPT = {"row": Number(0, whole=True), "reference": [Number()]}
BatchOfStep = Callable[[int], Batch]


@dataclass(frozen=True)
class TokenizedPair:
    """A prompt and both answers as token ids, and how many of the three were cut."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    num_cut: int


def tokenized_pairs(config: RunConfig, chat: Chat, examples: list[Example]) -> list[TokenizedPair]:
    """The pairs as token ids, cut as rows of the task are. Raises UserError for one that the chat
    template does not show."""
    limits = config.data.max_prompt_tokens, config.data.max_response_tokens
    return [_tokenized_pair(chat, one, limits) for one in examples]


def _tokenized_pair(chat: Chat, example: Example, limits: tuple[int, int]) -> TokenizedPair:
    chosen, rejected = (
        tokenize(replace(example, target=answer, ended=True), chat, *limits)
        for answer in (example.safe, example.harmful)
    )
    num_cut = chosen.prompt_cut + chosen.target_cut + rejected.target_cut
    return TokenizedPair(chosen.prompt, chosen.target, rejected.target, num_cut)


def pair_notes(
    config: RunConfig, loaded: LoadedPairs, pairs: list[TokenizedPair]
) -> tuple[str, ...]:
    """What is said of rows that make no pair, and of pairs that were cut."""
    source = config.data.preferences
    notes = [
        f"{what}: {number}, the first at {where}"
        for what, (number, where) in loaded.left_out.items()
    ]
    number = sum(pair.num_cut > 0 for pair in pairs)
    if number:
        notes.append(
            f"{source}: of {len(pairs)} pairs, {number} were too long (of a prompt the end was "
            "kept, of an answer the start); see config.data.max_prompt_tokens and "
            "max_response_tokens"
        )
    return tuple(notes)


def check_given(config: RunConfig, mesh: Mesh | None) -> None:
    """Raise UserError where the mesh or the microbatches do not cut a step's given pairs evenly."""
    rows, shards = given_rows(config), num_shards(mesh, "batch")
    unit = shards * config.training.accumulation
    if rows % unit:
        raise UserError(
            f"config.data.preference_rows: {rows} pairs a step cannot be cut into {shards} shards "
            f"({row_axes(mesh)} of config.mesh) × {config.training.accumulation} microbatches; "
            f"set a multiple of {unit}"
        )


def check_pair_positions(config: RunConfig, model: Model, pairs: list[TokenizedPair]) -> None:
    """Raise UserError where a prompt with an answer is more than the model can read."""
    longest = max(
        (len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs), default=0
    )
    model.config.check_row(
        longest,
        f"{config.data.preferences}: the longest prompt with its answer",
        "lower config.data.max_prompt_tokens or max_response_tokens",
    )


def given_rows(config: RunConfig) -> int:
    """Given pairs a step, over all hosts."""
    if not config.data.preferences:
        return 0
    return config.data.preference_rows or config.training.batch_size


def given_batches(run: Run, pairs: list[TokenizedPair]) -> BatchOfStep | None:
    """step → this host's given pairs, with the frozen copy's log-probs of both answers; None
    without pairs. Those log-probs are computed here for every pair that the run will see."""
    if not pairs:
        return None
    config = run.config
    schedule = _schedule(config, pairs)
    seen = {
        int(row) for step in range(config.training.steps) for row in schedule.rows_of_step(step)[0]
    }
    with run.clock.part("review"):
        reference = _reference(config, run.setup, schedule, pairs, seen)

    def batch(step: int) -> Batch:
        rows, shape = schedule.rows_of_step(step)
        return _batch(pairs, rows[own_rows(len(rows))], shape, reference)

    return batch


def _schedule(config: RunConfig, pairs: list[TokenizedPair]) -> Schedule:
    """Beside other rows, which have shapes of their own, there are so few shapes that both together
    make no more than data.buckets programs."""
    beside = bool(config.data.train) or config.conscience.enabled
    buckets = choose_buckets(
        np.array([len(pair.prompt) for pair in pairs]),
        np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs]),
        max_buckets=isqrt(config.data.buckets) if beside else config.data.buckets,
        min_rows=given_rows(config),
    )
    return Schedule(buckets, given_rows(config), order_seed(config.seed, _ORDER))


def _batch(
    pairs: list[TokenizedPair],
    rows: Iterable[int],
    shape: tuple[int, int],
    reference: dict[int, tuple[float, float]] | None,
) -> Batch:
    shown = [pairs[row] for row in rows]
    known = [reference[row] if reference else None for row in map(int, rows)]
    return make_batch(
        [pair.prompt for pair in shown],
        [[]] * len(shown),
        [Pair(pair.chosen, pair.rejected, of) for pair, of in zip(shown, known)],
        prompt_width=shape[0],
        branch_width=shape[1],
        roles=_ROLES,
        with_reference=reference is not None,
    )


def _reference(
    config: RunConfig,
    setup: Setup,
    schedule: Schedule,
    pairs: list[TokenizedPair],
    seen: set[int],
) -> dict[int, tuple[float, float]]:
    """By row, the frozen copy's log P of chosen and rejected, read from the first host's cache
    folder as far as they are there; the rest is computed, in the shapes of the steps, and appended.
    A run that was killed here makes the same batches again, and so the same bits."""
    path = reference_file(config, setup, pairs)
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            trim_torn_line(path)
    kept = list(read_json_lines(path, _KEPT, warn)) if is_first() else []
    known = {record["row"]: tuple(record["reference"]) for record in gather_list(kept)}
    chunks = [chunk for chunk in _chunks(schedule, seen) if not known.keys() >= set(chunk[0])]
    settings = step_settings(config, setup)
    with progress("reading pairs", shown=is_first() and bool(chunks)) as meter:
        for place, (rows, shape) in enumerate(chunks):
            meter(place, len(chunks))
            own = np.array(rows)[own_rows(len(rows))]
            batch = to_devices(_batch(pairs, own, shape, None))
            values = to_host(reference_log_probs(settings, setup.model.params, batch))
            records = [
                {"row": int(row), "reference": value.tolist()} for row, value in zip(own, values)
            ]
            missing = {r["row"]: r for r in gather_list(records) if r["row"] not in known}
            if is_first():
                with GrowingFile(path) as file:
                    append_json_lines(file, list(missing.values()))
            known |= {row: tuple(record["reference"]) for row, record in missing.items()}
    return known


def _chunks(schedule: Schedule, seen: set[int]) -> list[tuple[list[int], tuple[int, int]]]:
    """The rows that are seen in batches of a step's size and shapes; the last of a shape repeats
    its last row."""
    chunks = []
    for shape, members in zip(schedule.buckets.shapes, schedule.buckets.members):
        rows, size = [int(row) for row in members if int(row) in seen], schedule.batch_size
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            chunks.append((chunk + [chunk[-1]] * (size - len(chunk)), shape))
    return chunks


def reference_file(config: RunConfig, setup: Setup, pairs: list[TokenizedPair]) -> Path:
    """Where log-probs are kept that depend on just these frozen parameters and these tokens: in
    config.conscience.cache, or the cache."""
    identity = {
        "reference log-probs of": fingerprint(setup.model.params),
        "dtype": str(setup.model.dtype),
        "pairs": digest([[pair.prompt, pair.chosen, pair.rejected] for pair in pairs]),
    }
    return cache_path(config.conscience.cache, "reference-log-probs", identity)
