"""Everything random has a key of its own, and every key is made in one place."""

import ast
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emergent_alignment
from emergent_alignment import randomness
from emergent_alignment.randomness import (
    CRITIQUES,
    FLAGGING,
    NO_STEP,
    PASSING,
    PRINCIPLES,
    Draws,
    Purpose,
    key_for,
    known_seed,
    row_keys,
)

PACKAGE = Path(emergent_alignment.__file__).parent
IN_PARTS = (
    Purpose.CORRECTIONS,
    Purpose.TARGET_CORRECTIONS,
    Purpose.DRAFT_CORRECTIONS,
    Purpose.GIVEN_CORRECTIONS,
    Purpose.PRINCIPLED_CORRECTIONS,
    Purpose.FORKS,
    Purpose.AMENDS,
)
PARTS = (0, 1, 2, CRITIQUES, FLAGGING, PASSING, PASSING + 1, PRINCIPLES)
SEEDS = (7, 2**32 + 7, 2**33 + 7)  # of the wide ones JAX alone reads the 7
# Numbers that purposes, rows and parts have too: what is folded in another order would meet them.
STEPS = sorted({*range(max(Purpose) + 3), *PARTS, NO_STEP})
ROWS = np.array(sorted({*range(max(Purpose) + 3), *PARTS, 2**31 - 1, NO_STEP}), np.uint32)
PLACES = np.arange(2)
# Who else may touch jax.random's keys, and why.
OTHERS = {
    "generation/sampler.py": "folds a token's place into its row's key",
    "models/lora.py": "folds a projection's place into the adapters' key",
    "models/forward.py": "asks for the shapes of parameters alone",
    "models/model.py": "draws the parameters of tests and plans from a seed of their own",
    "training/optimizer.py": "rounds moments: a hash of the count and the place, with no seed",
    "evaluation/misalignment/local_judge.py": "is greedy: the keys are there, and nothing is drawn",
}
MAKING = {"key", "PRNGKey", "fold_in", "split"}


def words(keys) -> np.ndarray:
    """uint64[keys]"""
    pairs = np.asarray(jax.random.key_data(keys)).reshape(-1, 2).astype(np.uint64)
    return pairs[:, 0] << np.uint64(32) | pairs[:, 1]


@jax.jit
def below(parents):
    """The keys of rows of each of these keys, and those of tokens of each row."""
    rows = jax.vmap(row_keys, (0, None))(parents, ROWS)
    return rows, jax.vmap(jax.vmap(row_keys, (0, None)), (0, None))(rows, PLACES)


def test_no_two_uses_have_a_key_in_common(monkeypatch):
    """Neither uses, nor their parts, their rows, or tokens of their rows."""
    monkeypatch.setattr(randomness, "_root", functools.cache(randomness._root))
    found = []
    for purpose in Purpose:
        if purpose == Purpose.WIDE_SEED:
            continue
        uses = jnp.stack([key_for(seed, purpose, step) for seed in SEEDS for step in STEPS])
        found.append(words(uses))
        if purpose in IN_PARTS:
            uses = jax.vmap(row_keys, (0, None))(uses, np.array(PARTS)).reshape(-1)
            found.append(words(uses))
        found += map(words, below(uses))
    everything = np.concatenate(found)
    assert len(everything) > 1e6 and len(np.unique(everything)) == len(everything)


def test_parts_and_rows_are_what_is_enumerated():
    whole = key_for(5, Purpose.CORRECTIONS, 3)
    for part in PARTS:
        found = Draws(5, Purpose.CORRECTIONS, 3).keys(part, ROWS)
        assert (words(found) == words(row_keys(jax.random.fold_in(whole, part), ROWS))).all()
    assert words(key_for(5, Purpose.DRAFTS, row=3)) == words(
        row_keys(key_for(5, Purpose.DRAFTS), np.array([3]))
    )


@pytest.mark.parametrize("step", [0, 1, 2, 402])
def test_runs_go_on_with_the_candidates_and_corrections_of_earlier_versions(step):
    before = jax.random.fold_in(jax.random.key(3), step)
    assert words(key_for(3, Purpose.CANDIDATES, step)) == words(jax.random.fold_in(before, 1))
    corrections = jax.random.fold_in(jax.random.fold_in(before, 2), 1)
    found = Draws(3, Purpose.CORRECTIONS, step).keys(1, ROWS)
    assert (words(found) == words(row_keys(corrections, ROWS))).all()


def test_a_step_that_cannot_be_has_no_key():
    for step in (-1, NO_STEP + 1):
        with pytest.raises(ValueError, match="not between"):
            key_for(0, Purpose.CANDIDATES, step)


def test_an_endpoint_gets_a_number_of_its_own_for_every_use():
    rows = [0, 1, 2, 3, 50]
    numbers = [
        Draws(seed, purpose, step).number(part, row)
        for seed in (0, 7, 2**32 + 7)
        for purpose in IN_PARTS
        for step in (0, 1, NO_STEP)
        for part in PARTS
        for row in rows
    ]
    assert len(set(numbers)) == len(numbers) and all(0 <= n < 2**31 for n in numbers)
    assert Draws(None, Purpose.CORRECTIONS).number(0, 0) is None


def test_nobody_can_foresee_what_no_seed_draws():
    assert known_seed(5) == 5 and known_seed(None) != known_seed(None)
    none = Draws(None, Purpose.DRAFT_CORRECTIONS)
    assert (words(none.keys(0, ROWS)) != words(none.keys(0, ROWS))).all()


def makes_keys(path: Path) -> list[int]:
    """Lines that name jax.random's ways of making keys, or call nnx.Rngs."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    named = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in MAKING]
    lines = [node.lineno for node in named if ast.unparse(node.value) == "jax.random"]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    lines += [node.lineno for node in called if ast.unparse(node) in ("nnx.Rngs", "Rngs")]
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return lines + [node.lineno for node in imported if node.module == "jax.random"]


def test_every_key_is_made_where_the_purposes_are_listed():
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := makes_keys(path))
    }
    assert found.pop("randomness.py")
    unknown = {name: lines for name, lines in found.items() if name not in OTHERS}
    assert not unknown, "take a key_for a Purpose instead"
    assert OTHERS.keys() <= found.keys(), "no longer so: take it off the list"
