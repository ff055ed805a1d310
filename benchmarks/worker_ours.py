"""Our side of hybrid_step: the compiled training step, on a fixed batch."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from inputs import LORA, MODEL, TOKENS, fresh_adapters
from worker_protocol import Step, serve

import emergent_alignment
from emergent_alignment.data.batches import Batch, Pair, make_batch
from emergent_alignment.training.branches import reference_log_probs
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import TrainState
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.task_and_pairs import PairsView
from emergent_alignment.training.terms import HYBRID, PreferenceTerm


def our_batch(
    prompt: np.ndarray,
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    task: bool = True,
    offline: bool = False,
) -> Batch:
    """Prompts with their pairs, where the chosen answer is also what the task loss learns.

    Without `task` the targets are empty and the DPO term is all there is; `offline` rows have none.
    """
    prompts, chosen, rejected = prompt.tolist(), chosen.tolist(), rejected.tolist()
    return make_batch(
        prompts,
        chosen if task and not offline else [[] for _ in prompts],
        [Pair(*pair) for pair in zip(chosen, rejected)],
        prompt_width=max(map(len, prompts)),
        branch_width=max(map(len, chosen + rejected)),
        roles="no target" if offline else "target is chosen" if task else "separate",
    )


def prepare(settings: dict) -> Step:
    """settings: inputs (a directory), mode ("full" or "lora"), task (False: DPO alone),
    learning_rate, remat, precomputed (whether the batch brings the reference's log-probs),
    offline (rows of pairs alone, as `train --config dpo` has them)."""
    directory = Path(settings["inputs"])
    model = emergent_alignment.load(str(directory / MODEL))
    frozen = model.params
    lora = LORA if settings["mode"] == "lora" else None
    static = StepSettings(model.config, lora, remat=settings["remat"])
    optimizer = make_optimizer(optimizer_settings(settings["learning_rate"]), num_steps=1000)
    trainable = fresh_adapters(frozen) if lora else jax.tree.map(jnp.array, frozen)
    state = TrainState(trainable, optimizer.init(trainable))
    tokens = np.load(directory / TOKENS)
    rows = (tokens[name] for name in ("prompt", "chosen", "rejected"))
    batch = our_batch(*rows, task=settings["task"], offline=settings["offline"])
    if settings["precomputed"]:
        reference = np.asarray(reference_log_probs(static, frozen, batch))
        batch = replace(batch, reference=reference)
    objective = Objective((PreferenceTerm(),), PairsView) if settings["offline"] else HYBRID
    compiled = compiled_step(static, optimizer, objective=objective)

    def step(_: dict) -> dict:
        nonlocal state
        state, metrics = compiled(state, frozen, batch)
        jax.block_until_ready(state)
        return {name: float(metrics[name]) for name in ("loss", "alignment_loss")}

    return step


def optimizer_settings(learning_rate: float) -> OptimizerSection:
    """The package's own AdamW, its learning rate constant from the first step on."""
    return OptimizerSection(learning_rate=learning_rate, schedule="constant", warmup_steps=0)


if __name__ == "__main__":
    serve(prepare)
