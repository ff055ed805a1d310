"""Write reinforcement_losses.json: what TRL and rlax make of random rollouts.

Run it with nothing of this project, where TRL 1.16 and rlax 0.1.9 are installed, and where a
folder holds TRL 0.11.4, the last one whose PPO is made of functions that can be called one by one:

    pip install "trl==1.16.0" rlax tyro
    pip install --no-deps --target OLD "trl==0.11.4"
    python make_reinforcement_losses.py OLD

It drives TRL's own methods with stand-ins for the trainers, in float64: PPOTrainer's
compute_rewards, compute_advantages and loss (0.11.4), GRPOTrainer's _compute_loss and
RewardTrainer's compute_loss (1.16). rlax gives GAE and PPO's clipped loss a second time. All inputs
are multiples of 1/64, which float32 holds exactly.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

ROWS, TOKENS, VOCABULARY = 6, 7, 11


def rollout() -> dict[str, np.ndarray]:
    """Rows of uneven lengths; log-probs that moved a little since they were drawn."""
    draw = np.random.default_rng(20261127)

    def multiples(low, high, *shape):
        return draw.integers(int(low * 64), int(high * 64), shape) / 64

    old = multiples(-6, 0, ROWS, TOKENS)
    return {
        "lengths": np.array([7, 5, 1, 6, 3, 7]),
        "old_log_probs": old,
        "log_probs": np.minimum(old + multiples(-0.6, 0.6, ROWS, TOKENS), 0),
        "reference": np.minimum(old + multiples(-1, 1, ROWS, TOKENS), 0),
        "old_values": multiples(-2, 2, ROWS, TOKENS),
        "values": multiples(-2, 2, ROWS, TOKENS),
        "scores": multiples(-3, 3, ROWS),
        "logits": multiples(-3, 3, ROWS, TOKENS, VOCABULARY),
    }


def tensors(arrays: dict[str, np.ndarray]) -> tuple[SimpleNamespace, torch.Tensor]:
    found = {name: torch.tensor(array) for name, array in arrays.items()}
    mask = (torch.arange(TOKENS)[None] < found["lengths"][:, None]).to(torch.float64)
    return SimpleNamespace(**found), mask


def ppo_cases() -> list[dict]:
    """TRL 0.11.4's PPO under several settings, with the gradients of its losses."""
    from trl.core import masked_var, masked_whiten
    from trl.trainer.ppo_trainer import PPOTrainer

    x, mask = tensors(rollout())
    cases = []
    for discount, decay, clip, kl_weight in ((1.0, 1.0, 0.2, 0.01), (0.97, 0.9, 0.1, 0.3)):
        config = SimpleNamespace(
            gamma=discount, lam=decay, whiten_rewards=False, cliprange=clip, cliprange_value=clip,
            vf_coef=0.5, kl_penalty="kl", ratio_threshold=1e9,
        )  # fmt: skip
        trainer = SimpleNamespace(config=config, kl_ctl=SimpleNamespace(value=kl_weight))
        trainer._kl_penalty = lambda *a, self=trainer: PPOTrainer._kl_penalty(self, *a)
        rewards, _, _ = PPOTrainer.compute_rewards(
            trainer, x.scores, x.old_log_probs, x.reference, mask
        )
        _, advantages, returns = PPOTrainer.compute_advantages(trainer, x.old_values, rewards, mask)
        log_probs, values = x.log_probs.clone(), x.values.clone()
        log_probs.requires_grad_()
        values.requires_grad_()
        policy_loss, value_loss, stats = PPOTrainer.loss(
            trainer, x.old_log_probs, x.old_values, x.logits, values, log_probs, mask, advantages,
            returns,
        )  # fmt: skip
        policy_loss.backward()
        value_loss.backward()
        whitened = masked_whiten(rewards, mask, shift_mean=False) * mask
        residual = masked_var(returns - x.old_values * mask, mask, unbiased=False)
        cases.append(
            {
                "discount": discount, "decay": decay, "clip": clip, "kl_weight": kl_weight,
                "rewards": (rewards * mask).tolist(),
                "advantages": (advantages * mask).tolist(),
                "returns": (returns * mask).tolist(),
                "policy_loss": policy_loss.item(),
                "policy_gradient": log_probs.grad.tolist(),
                "value_loss": value_loss.item() / config.vf_coef,
                "value_gradient": (values.grad / config.vf_coef).tolist(),
                "clip_share": stats["policy/clipfrac"].item(),
                "entropy": stats["policy/entropy"].item(),
                "k2": stats["policy/approxkl"].item(),
                "explained_variance": 1
                - (residual / masked_var(returns, mask, unbiased=False)).item(),
                "whitened_rewards": whitened.tolist(),
            }
        )  # fmt: skip
    return cases


class OneProcess:
    """What TRL asks of its accelerator."""

    device = "cpu"
    num_processes = 1

    def gather(self, values):
        return values

    gather_for_metrics = gather

    def reduce(self, values, reduction):
        return values


def grpo_cases() -> list[dict]:
    """TRL 1.16's GRPO: each normalisation and level, with gradients."""
    from trl import GRPOTrainer

    x, mask = tensors(rollout())
    advantages = group_advantages(x.scores)["group"].reshape(-1)
    cases = []
    for kind in ("grpo", "dapo", "dr_grpo"):
        for level in ("token", "sequence"):
            for low, high, beta in ((0.2, 0.2, 0.0), (0.2, 0.28, 0.04)):
                log_probs = x.log_probs.clone().requires_grad_()
                nothing = torch.zeros_like(log_probs)
                trainer = SimpleNamespace(
                    _get_per_token_logps_and_entropies=lambda *a, lp=log_probs, n=nothing, **k: (
                        lp, n, None,
                    ),
                    aux_loss_enabled=False, top_entropy_quantile=1.0,
                    off_policy_mask_threshold=None,
                    importance_sampling_level=level, beta=beta, loss_type=kind, epsilon_low=low,
                    epsilon_high=high, use_vllm=False, max_completion_length=TOKENS,
                    model=SimpleNamespace(training=False), accelerator=OneProcess(),
                    current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
                    use_adaptive_entropy=False, tools=None, _metrics={"eval": defaultdict(list)},
                    args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
                )  # fmt: skip
                inputs = {
                    "prompt_ids": torch.ones(ROWS, 1, dtype=torch.long),
                    "prompt_mask": torch.ones(ROWS, 1),
                    "completion_ids": torch.ones(ROWS, TOKENS, dtype=torch.long),
                    "completion_mask": mask,
                    "advantages": advantages,
                    "old_per_token_logps": x.old_log_probs,
                    "ref_per_token_logps": x.reference,
                    "num_items_in_batch": mask.sum(),
                }
                loss = GRPOTrainer._compute_loss(trainer, None, inputs)
                loss.backward()
                token = level == "token"
                metrics = {name: found[-1] for name, found in trainer._metrics["eval"].items()}
                cases.append(
                    {
                        "normalization": kind, "level": level, "clip": low, "clip_high": high,
                        "kl_weight": beta, "loss": loss.item(), "gradient": log_probs.grad.tolist(),
                        "kl": metrics.get("kl"),
                        "clip_share": metrics["clip_ratio/region_mean"] if token else None,
                    }
                )  # fmt: skip
    return cases


def group_advantages(scores: torch.Tensor) -> dict[str, torch.Tensor]:
    """TRL 1.16's lines (GRPOTrainer._generate_and_score_completions), groups of three."""
    grouped = scores.view(-1, 3)
    mean = grouped.mean(dim=1).repeat_interleave(3)
    deviation = grouped.std(dim=1).repeat_interleave(3)
    centred = scores - mean
    found = {"group": centred / (deviation + 1e-4), "none": centred}
    return {name: values.view(-1, 3) for name, values in found.items()}


def bradley_terry() -> dict:
    """TRL 1.16's reward loss of four pairs, one at a time."""
    from trl import RewardTrainer

    pairs = [(0.0, 0.0), (1.5, -0.25), (-3.0, 2.0), (20.0, -20.0)]
    losses = []
    for pair in pairs:
        trainer = SimpleNamespace(
            model=SimpleNamespace(training=False), accelerator=OneProcess(), _tp_size=1,
            _total_train_tokens=0, _metrics={"eval": defaultdict(list)},
            args=SimpleNamespace(center_rewards_coefficient=None),
        )  # fmt: skip
        outputs = SimpleNamespace(logits=torch.tensor(pair, dtype=torch.float64)[:, None])
        losses.append(
            RewardTrainer.compute_loss(trainer, lambda outputs=outputs, **_: outputs, {}).item()
        )
    return {"pairs": pairs, "losses": losses}


def rlax_cases() -> dict:
    """rlax's GAE and PPO loss of the rows that are whole."""
    import jax
    import rlax

    jax.config.update("jax_enable_x64", True)
    x = rollout()
    row, rewards = 0, x["logits"][0, :, 0]
    values = np.append(x["old_values"][row], 0.0)
    found = []
    for discount, decay in ((1.0, 1.0), (0.97, 0.9)):
        advantages = rlax.truncated_generalized_advantage_estimation(
            rewards, np.full(TOKENS, discount), decay, values
        )
        ratio = np.exp(x["log_probs"][row] - x["old_log_probs"][row])
        loss = rlax.clipped_surrogate_pg_loss(ratio, advantages, 0.2)
        found.append(
            {
                "discount": discount, "decay": decay, "advantages": np.asarray(advantages).tolist(),
                "policy_loss": float(loss),
            }
        )  # fmt: skip
    return {"row": row, "rewards": rewards.tolist(), "cases": found}


def main() -> None:
    if sys.argv[1] == "--ppo":
        print(json.dumps(ppo_cases()))
        return
    import importlib.metadata as packages

    old = subprocess.run(
        [sys.executable, __file__, "--ppo"],
        env=os.environ | {"PYTHONPATH": sys.argv[1]},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    x = rollout()
    content = {
        "made_by": "tests/golden/make_reinforcement_losses.py",
        "versions": {"trl (PPO)": "0.11.4"}
        | {name: packages.version(name) for name in ("trl", "rlax", "torch")},
        "rollout": {name: array.tolist() for name, array in x.items()},
        "ppo": json.loads(old.stdout.splitlines()[-1]),
        "grpo": grpo_cases(),
        "group_advantages": {
            name: values.tolist()
            for name, values in group_advantages(torch.tensor(x["scores"])).items()
        },
        "bradley_terry": bradley_terry(),
        "rlax": rlax_cases(),
    }
    path = Path(__file__).with_name("reinforcement_losses.json")
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"{len(content['ppo'])} settings of PPO, {len(content['grpo'])} of GRPO in {path}")


if __name__ == "__main__":
    main()
