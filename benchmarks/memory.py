"""Memory of the training step by XLA's own account, against the form with nothing shared.

Nothing runs: both forms are compiled for shapes alone and asked for `memory_analysis()`.

  separate rows   chosen and rejected each with the prompt in front of them, a row each
  shared prompt   one row: the prompt once, then its branches
  full logits     an array of [tokens, vocabulary] at once
  chunked logits  a few hundred tokens at a time, computed again for the gradient

Before that, both forms run on a tiny model and must give the same loss and gradient norm.
The sizes are Qwen2.5-0.5B's: a vocabulary of 151,936. A row is prompt and one answer.
"""

import argparse
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tables
from arguments import positive
from inputs import LORA, tiny_model
from plots import plot_lines
from worker_ours import optimizer_settings, our_batch

from emergent_alignment.data.batches import Batch
from emergent_alignment.losses import hybrid_loss, token_log_probs
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import random_params
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.state import TrainState, initial_state, policy_params
from emergent_alignment.training.step import train_step
from emergent_alignment.training.step_settings import StepSettings

TOLERANCE = 1e-3
SEPARATE, SHARED = "separate rows", "shared prompt"


def main() -> None:
    """Compare on a tiny model, compile every form, print the table, keep rows and plot."""
    args = parse_arguments()
    off = difference(tiny_model().config, LORA if args.lora else None)
    if not off <= TOLERANCE:
        raise SystemExit(f"the two forms differ by {off:.2g}, more than {TOLERANCE}")
    print(f"On a tiny model, loss and gradient norm of the two forms agree within {off:.0e}.")
    config = qwen_config(args.vocabulary)
    if args.small:
        config = replace(tiny_model().config, vocab_size=args.vocabulary)
    rows = [
        memory_row(config, args, rows, chunked, remat, args.tokens)
        for remat in ("none", "full")
        for rows in (SEPARATE, SHARED)
        for chunked in (False, True)
    ]
    print_rows(rows, args)
    if args.small:
        return
    for tokens in (args.tokens // 8, args.tokens // 4, args.tokens // 2):
        rows.append(memory_row(config, args, SEPARATE, False, "full", tokens))
        rows.append(memory_row(config, args, SHARED, True, "full", tokens))
    key = ("rows", "chunked", "remat", "tokens", "response", "vocabulary", "pairs", "lora")
    print(f"Kept in {tables.keep_rows('memory', rows, key)} and {plot(rows)}")


def memory_row(
    config: ModelConfig, args: argparse.Namespace, rows: str, chunked: bool, remat: str, tokens: int
) -> dict:
    """One form at one length: bytes of temporaries, and of everything at once."""
    lora = LORA if args.lora else None
    chunk = StepSettings.chunk_size if chunked else None
    settings = StepSettings(config, lora, remat=remat, chunk_size=chunk)
    response = tokens * args.response // args.tokens
    batch = random_batch(config, args.pairs, tokens - response, response)
    memory = step_memory(rows, settings, batch)
    row = {"rows": rows, "chunked": chunked, "remat": remat, "tokens": tokens}
    row |= {"response": response, "vocabulary": config.vocab_size, "pairs": args.pairs}
    return row | {"lora": args.lora} | memory | {"jax": jax.__version__}


def step_memory(rows: str, settings: StepSettings, batch: Batch) -> dict[str, int]:
    """Compile a step for the batch's shapes: {"temporary_bytes", "total_bytes"}."""
    optimizer = make_optimizer(optimizer_settings(1e-6), num_steps=1000)
    frozen = jax.eval_shape(lambda: random_params(settings.config))
    state = jax.eval_shape(lambda p: initial_state(p, settings.lora, optimizer, 0), frozen)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    compiled = step_of(rows, settings, optimizer).lower(state, frozen, shapes).compile()
    account = compiled.memory_analysis()
    total = account.argument_size_in_bytes + account.output_size_in_bytes
    total += account.temp_size_in_bytes - account.alias_size_in_bytes
    return {"temporary_bytes": account.temp_size_in_bytes, "total_bytes": total}


def step_of(rows: str, settings: StepSettings, optimizer: optax.GradientTransformation) -> Callable:
    """The jitted step of a form, its state donated."""
    step = train_step if rows == SHARED else separate_rows_step
    return jax.jit(functools.partial(step, settings, optimizer), donate_argnums=0)


def separate_rows_step(
    settings: StepSettings,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: dict,
    batch: Batch,
) -> tuple[TrainState, dict]:
    """The step as it is usually written: every answer a row of its own, prompt included."""

    def loss_of(trainable: Any) -> tuple[jax.Array, dict]:
        policy = separate_rows_log_probs(
            settings, policy_params(trainable, frozen, settings.lora), batch
        )
        reference = separate_rows_log_probs(settings, jax.lax.stop_gradient(frozen), batch).sum(-1)
        everything = jnp.ones(policy.shape[1:], bool)
        # The chosen answer is also the target.
        answers = [policy[0], everything, policy[0], everything, policy[1], everything]
        return hybrid_loss(*answers, *reference, batch.pair_mask)

    (loss, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
    updates, moments = optimizer.update(gradients, state.optimizer, state.trainable)
    state = TrainState(optax.apply_updates(state.trainable, updates), moments)
    return state, metrics | {"loss": loss, "gradient_norm": optax.global_norm(gradients)}


def separate_rows_log_probs(settings: StepSettings, params: dict, batch: Batch) -> jax.Array:
    """float32[2, pairs, tokens of an answer], chosen and rejected; rows must have no padding."""
    roles = batch.roles
    answers = [batch.branches[:, roles.chosen], batch.branches[:, roles.rejected]]
    rows = [jnp.concatenate([batch.prompt, answer], axis=1) for answer in answers]
    tokens = jnp.concatenate(rows)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    plan = causal_plan(positions)
    hidden, _ = forward(settings.config, params, tokens, positions, plan, remat=settings.remat)
    matrix = unembedding(params)
    chunk = settings.chunk_size
    log_probs = token_log_probs(hidden[:, :-1], matrix, tokens[:, 1:], chunk_size=chunk)
    return log_probs[:, batch.prompt.shape[1] - 1 :].reshape(2, *answers[0].shape)


def difference(config: ModelConfig, lora: LoraConfig | None) -> float:
    """How far loss and gradient norm of the two forms are apart, at the first step and after
    an update, on random weights of a small model."""
    batch = random_batch(config, 2, 24, 8)
    optimizer = make_optimizer(optimizer_settings(1e-3), num_steps=1000)
    frozen = jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 2 else leaf, random_params(config))
    metrics_of = {}
    for rows, chunk in ((SEPARATE, None), (SHARED, 7)):
        step = step_of(rows, StepSettings(config, lora, chunk_size=chunk), optimizer)
        state = initial_state(frozen, lora, optimizer, 0)
        metrics_of[rows] = []
        for _ in range(2):
            state, metrics = step(state, frozen, batch)
            metrics_of[rows] += [float(metrics["loss"]), float(metrics["gradient_norm"])]
    return max(abs(own - other) for own, other in zip(metrics_of[SHARED], metrics_of[SEPARATE]))


def random_batch(config: ModelConfig, pairs: int, prompt: int, response: int) -> Batch:
    """Random tokens, no padding; the chosen answer is also the target."""
    draw = np.random.default_rng(0)
    shapes = ((pairs, prompt), (pairs, response), (pairs, response))
    return our_batch(*(draw.integers(0, config.vocab_size, shape) for shape in shapes))


def qwen_config(vocabulary: int) -> ModelConfig:
    """Qwen2.5-0.5B's sizes."""
    return ModelConfig(
        family="qwen2",
        vocab_size=vocabulary,
        hidden_size=896,
        intermediate_size=4864,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        rope_theta=1_000_000.0,
        tie_embeddings=True,
        qkv_bias=True,
        max_positions=32768,
    )


def print_rows(rows: list[dict], args: argparse.Namespace) -> None:
    """The table; ratios are to separate rows with full logits, of the same remat."""
    cells = []
    for row in rows:
        first = next(r for r in rows if r["remat"] == row["remat"])
        ratio = first["temporary_bytes"] / row["temporary_bytes"]
        logits = "chunked logits" if row["chunked"] else "full logits"
        sizes = (tables.bytes_text(row[name]) for name in ("temporary_bytes", "total_bytes"))
        cells.append([f"{row['rows']}, {logits}", row["remat"], *sizes, f"{ratio:.2f}×"])
    title = (
        f"Bytes of one step: vocabulary {rows[0]['vocabulary']:,}, {args.tokens:,} tokens a row "
        f"({args.response:,} of them the answer's), pairs: {args.pairs}, float32, "
        f"{'LoRA' if args.lora else 'all parameters'}"
    )
    header = ["form", "remat", "temporaries", "with arguments", "first form / this"]
    tables.print_table(title, header, cells)


def plot(rows: list[dict]) -> Path:
    """Temporaries over the length of a row, with remat."""
    lines = {}
    for label, form, chunked in (("ours", SHARED, True), ("separate, full", SEPARATE, False)):
        of_line = [
            r for r in rows if (r["rows"], r["chunked"], r["remat"]) == (form, chunked, "full")
        ]
        of_line.sort(key=lambda row: row["tokens"])
        gigabytes = [row["temporary_bytes"] / 1e9 for row in of_line]
        lines[label] = ([row["tokens"] for row in of_line], gigabytes)
    name = "memory_lora" if rows[0]["lora"] else "memory"
    return plot_lines(name, lines, "tokens a row", "temporaries, GB (remat)")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vocabulary", type=positive, help="tokens in the vocabulary (151936; 8192 if small)")
    add("--tokens", type=positive, help="of prompt and one answer together (4096; 1024 if small)")
    add("--response", type=positive, help="of them, the answer's (half)")
    add("--pairs", type=positive, default=1, help="prompts, each with a pair (1)")
    add("--lora", action="store_true", help="train adapters alone")
    add("--small", action="store_true", help="a tiny model: does it run? keeps nothing")
    args = parser.parse_args()
    args.vocabulary = args.vocabulary or (8192 if args.small else 151_936)
    args.tokens = args.tokens or (1024 if args.small else 4096)
    args.response = args.response or args.tokens // 2
    if args.response >= args.tokens:
        parser.error("--response must be less than --tokens")
    return args


if __name__ == "__main__":
    main()
