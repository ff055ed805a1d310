"""Runs that die in the middle, and what must be the same when they go on."""

import json

import jax
import numpy as np

from emergent_alignment.runs import training_run


class Killed(Exception):
    pass


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


def assert_bitwise_equal(left, right):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def interrupted_at(monkeypatch, step):
    """Make the loop die as it asks for the input of `step`."""
    loop = training_run.run

    def dying(settings, recording, make_input, *rest, **options):
        def make_input_or_die(at, trainable):
            if at == step:
                raise Killed
            return make_input(at, trainable)

        return loop(settings, recording, make_input_or_die, *rest, **options)

    monkeypatch.setattr(training_run, "run", dying)
