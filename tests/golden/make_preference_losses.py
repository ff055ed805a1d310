"""Write preference_losses.json: what TRL's DPOTrainer makes of random pairs, loss by loss.

Run it where TRL 1.16 is installed, with nothing of this project:  python make_preference_losses.py

It drives TRL's own `DPOTrainer._compute_loss`, in float64, one pair at a time, with a stand-in for
the model that gives prescribed log-probs. Log-probs are multiples of 1/64, so that float32 and
float64 subtract them exactly alike and only the formulas are compared. Two notes on TRL 1.16:

- its "sigmoid" does not read label_smoothing; smoothed, it is TRL's "aot" of a single pair, whose
  sort has nothing to do. Those rows say `"trl_kind": "aot"`.
- its "ipo" divides by the length; every response here has one token.
"""

import collections
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import trl
from trl import DPOTrainer

CASES = [
    ("sigmoid", "sigmoid", 0.0),
    ("sigmoid", "aot", 0.0),
    ("sigmoid", "aot", 0.1),
    ("ipo", "ipo", 0.0),
    ("hinge", "hinge", 0.0),
    ("robust", "robust", 0.1),
    ("robust", "robust", 0.3),
    ("exo_pair", "exo_pair", 0.1),
    ("nca_pair", "nca_pair", 0.0),
    ("apo_zero", "apo_zero", 0.0),
    ("apo_down", "apo_down", 0.0),
]
BETAS = (0.05, 0.1, 0.5, 1.0)
NAMES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


class OneProcess:
    """What TRL asks of its accelerator."""

    device = "cpu"

    def gather(self, values):
        return values

    gather_for_metrics = gather


def trl_loss(kind: str, beta: float, smoothing: float, pair: dict[str, torch.Tensor]):
    """TRL's loss of one pair of one-token responses, as a float64 scalar."""
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=OneProcess(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics={"eval": collections.defaultdict(list)},
        _total_train_tokens=0,
    )

    def model(**_):
        policy = torch.stack([pair["policy_chosen"], pair["policy_rejected"]])[:, None]
        nothing = torch.zeros(2, 1)
        return SimpleNamespace(
            log_probs=policy, entropy=nothing, mean_logits=nothing, is_top1=nothing > 0
        )

    inputs = {
        "input_ids": torch.ones(2, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1], [0, 1]]),
        "ref_chosen_logps": pair["reference_chosen"][None],
        "ref_rejected_logps": pair["reference_rejected"][None],
    }
    return DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)


def main() -> None:
    draw = np.random.default_rng(20260619)
    policy = draw.integers(-80 * 64, -5 * 64, (2, 12))
    drift = np.round(draw.standard_normal((2, 12)) * np.geomspace(0.1, 12, 12) * 64)
    rows = np.concatenate([policy, policy - drift]) / 64
    rows[:, 0] = [-20, -31, -20, -31]  # every Δ is 0
    cases = []
    for kind, trl_kind, smoothing in CASES:
        for beta in BETAS:
            losses, gradients = [], []
            for column in rows.T:
                pair = {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(NAMES, column)}
                for name in NAMES[:2]:
                    pair[name].requires_grad_()
                loss = trl_loss(trl_kind, beta, smoothing, pair)
                loss.backward()
                losses.append(loss.item())
                gradients.append([pair[name].grad.item() for name in NAMES[:2]])
            cases.append(
                {
                    "kind": kind,
                    "trl_kind": trl_kind,
                    "beta": beta,
                    "label_smoothing": smoothing,
                    "losses": losses,
                    "gradients_chosen": [g[0] for g in gradients],
                    "gradients_rejected": [g[1] for g in gradients],
                }
            )
    content = {
        "made_by": "tests/golden/make_preference_losses.py",
        "trl": trl.__version__,
        "torch": torch.__version__,
        "log_probs": {name: row.tolist() for name, row in zip(NAMES, rows)},
        "cases": cases,
    }
    path = Path(__file__).with_name("preference_losses.json")
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases of {rows.shape[1]} pairs in {path}")


if __name__ == "__main__":
    main()
