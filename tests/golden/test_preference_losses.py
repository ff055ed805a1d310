"""Our preference losses are TRL's (1.16), and where they do not carry the same name, say so.

The numbers come from make_preference_losses.py beside this file. Tolerance: 1e-6, absolute up to
1 and relative beyond.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emergent_alignment.losses import preference_loss

GOLDEN = json.loads(Path(__file__).with_name("preference_losses.json").read_text("utf-8"))


def name(case: dict) -> str:
    return f"{case['kind']}-{case['trl_kind']}-{case['beta']}-{case['label_smoothing']}"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=name)
def test_preference_losses_and_their_gradients_are_those_of_trl(case: dict) -> None:
    reference = [
        jnp.array(GOLDEN["log_probs"][side], jnp.float32)
        for side in ("reference_chosen", "reference_rejected")
    ]
    policy = [
        jnp.array(GOLDEN["log_probs"][side], jnp.float32)
        for side in ("policy_chosen", "policy_rejected")
    ]

    def loss(chosen, rejected):
        return preference_loss(
            chosen,
            rejected,
            *reference,
            kind=case["kind"],
            beta=case["beta"],
            label_smoothing=case["label_smoothing"],
        )

    values, pullback = jax.vjp(loss, *policy)
    gradients = pullback(jnp.ones_like(values))
    for what, ours, theirs in (
        ("losses", values, case["losses"]),
        ("gradients_chosen", gradients[0], case["gradients_chosen"]),
        ("gradients_rejected", gradients[1], case["gradients_rejected"]),
    ):
        difference = np.abs(np.asarray(ours) - theirs) / np.maximum(1.0, np.abs(theirs))
        worst = difference.argmax()
        assert difference.max() <= 1e-6, (
            f"{what}, pair {worst}: ours {ours[worst]}, TRL's {theirs[worst]}"
        )


def test_every_preference_loss_has_golden_numbers() -> None:
    from typing import get_args

    from emergent_alignment.losses import PreferenceKind

    assert {case["kind"] for case in GOLDEN["cases"]} == set(get_args(PreferenceKind))
