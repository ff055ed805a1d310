"""What a frozen copy in fewer bytes changes of the log-probs that it gives, beside the noise of
computing in bfloat16.

A safe and a harmful answer to each of the first held-out prompts of harmful advice, in the model's
own chat, read by the parameters in float32, and then as each `model.frozen_dtype` holds them,
computed in float32. The first row of the table is the noise: nothing held otherwise, computed in
bfloat16, as every run with `model.dtype=bfloat16` is.

example:
  python benchmarks/frozen_dtypes.py
  python benchmarks/frozen_dtypes.py --model Qwen/Qwen2.5-0.5B-Instruct
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tables
from arguments import positive

from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.losses import token_log_probs
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.frozen import FROZEN_DTYPES, hold_frozen
from emergent_alignment.models.model import Model, load

HEADER = ["held in", "computed in", "MB", "summed", "per token", "mean signed", "safe − harmful"]


def main() -> None:
    """Read the answers in every form, print the table, keep the rows."""
    args = parse_arguments()
    model = load(args.model)
    tokens, answers = token_rows(model, args.prompts)
    exact = summed(model, "", "float32", tokens, answers)
    forms = [("", "bfloat16"), *((held, "float32") for held in FROZEN_DTYPES if held)]
    rows = []
    for held, dtype in forms:
        change = summed(model, held, dtype, tokens, answers) - exact
        rows.append(measured(model, held, dtype, change, answers.sum(1)))
    name = Path(args.model).name
    title = (
        f"{name}: {len(tokens)} answers of {answers.sum(1).mean():.0f} tokens and"
        f" {exact.mean():.0f} nats; change of their log-probs, mean of absolute values (largest)"
    )
    tables.print_table(title, HEADER, [cells(row) for row in rows])
    rows = [{"model": name, "answers": len(tokens)} | row for row in rows]
    key = ("model", "answers", "held", "computed")
    print(f"Kept in {tables.keep_rows('frozen_dtypes', rows, key)}")


def token_rows(model: Model, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, which of them are answers), a row an answer: the safe one and the harmful one of
    each prompt after each other."""
    chat, rows = read_chat(model.tokenizer), []
    for row in load_scenario("harmful_advice", "heldout")[:prompts]:
        prompt = chat.prompt_tokens([{"role": "user", "content": row["prompt"]}])
        rows += [(prompt, chat.response_tokens(row[answer])) for answer in ("safe", "harmful")]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens, answers = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
    for i, (prompt, answer) in enumerate(rows):
        tokens[i, : len(prompt) + len(answer)] = prompt + answer
        answers[i, len(prompt) : len(prompt) + len(answer)] = True
    return tokens, answers


def summed(
    model: Model, held: str, dtype: str, tokens: np.ndarray, answers: np.ndarray
) -> np.ndarray:
    """The log-prob of each answer, four at a time."""
    params = hold_frozen(model.params, held)
    found = [
        log_probs(model.config, params, tokens[i : i + 4], dtype) for i in range(0, len(tokens), 4)
    ]
    return np.where(answers[:, 1:], np.concatenate(found), 0.0).sum(1, dtype=np.float64)


@functools.partial(jax.jit, static_argnums=(0, 3))
def log_probs(config: ModelConfig, params: dict, tokens: jax.Array, dtype: str) -> jax.Array:
    """Of every token but the first."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    plan = causal_plan(positions)
    hidden, _ = forward(config, params, tokens, positions, plan, dtype=jnp.dtype(dtype))
    matrix = unembedding(params, jnp.dtype(dtype))
    return token_log_probs(
        hidden[:, :-1], matrix, tokens[:, 1:], chunk_size=64, cap=config.logits_cap
    )


def measured(model: Model, held: str, dtype: str, change: np.ndarray, lengths: np.ndarray) -> dict:
    """A row of the table."""
    params = jax.eval_shape(lambda tree: hold_frozen(tree, held), model.params)
    margins = change[::2] - change[1::2]
    pairs = {"summed": change, "per token": change / lengths, "safe − harmful": margins}
    sizes = {name: [np.abs(x).mean(), np.abs(x).max()] for name, x in pairs.items()}
    return {
        "held": held or "float32",
        "computed": dtype,
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
        **{name: [float(x) for x in pair] for name, pair in sizes.items()},
        "mean signed": float(change.mean()),
    }


def cells(row: dict) -> list[str]:
    """Of a printed row."""

    def pair(name: str, digits: int = 2) -> str:
        mean, largest = row[name]
        return f"{mean:.{digits}f} ({largest:.{digits}f})"

    return [
        *(row["held"], row["computed"], f"{row['bytes'] / 1e6:.0f}"),
        *(pair("summed"), pair("per token", 4), f"{row['mean signed']:+.2f}"),
        pair("safe − harmful"),
    ]


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="default", help="directory, .gguf file, hub id (SmolLM2-135M)")
    add("--prompts", type=positive, default=16, help="each with two answers (16)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
