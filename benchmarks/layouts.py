"""How the weights should lie: bare matmuls of SmolLM2-135M's 30 layers, in the ways tried.

  decode    the products of one token of each row. Scanned over stacked weights (what the decoder
            does), the same with query/key/value and gate/up as one matrix each, and unrolled over
            separate arrays
  gradient  a forward and backward pass of 1,024 tokens as 4 rows of 256, trained weights: rows
            flattened to two dimensions (what the decoder does), or kept as [batch, tokens, width]

All ways take turns and must give the same numbers. Ratios are way / first way: above 1, it takes
longer.

example:
  python benchmarks/layouts.py --repeats 7
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tables
from arguments import positive, positives
from turns import ThisProcess, quiet_note, quiet_turns

LAYERS, WIDTH, INNER, KEYS = 30, 576, 1536, 192
SEPARATE = {
    "query": (WIDTH, WIDTH),
    "key": (WIDTH, KEYS),
    "value": (WIDTH, KEYS),
    "output": (WIDTH, WIDTH),
    "gate": (WIDTH, INNER),
    "up": (WIDTH, INNER),
    "down": (INNER, WIDTH),
}
SCANNED, FUSED, UNROLLED = "scanned", "scanned, fused", "unrolled"
FLAT, KEPT = "flattened rows", "[batch, tokens, width]"


def main() -> None:
    """Compare, measure in turns, print the tables, keep the rows."""
    args = parse_arguments()
    weights = random_weights()
    rows = [
        measure(f"decode, batch {batch}", decoding_ways(weights, batch), args)
        for batch in args.batches
    ]
    rows.append(measure("gradient, 1,024 tokens", gradient_ways(weights), args))
    for row in rows:
        first = next(iter(row["seconds"]))
        cells = [
            [
                way,
                tables.seconds_text(row["seconds"][way]),
                str(tables.ratio_of_pairs(row["seconds"][first], row["seconds"][way])),
                str(tables.ratio_of_pairs(row["processor"][first], row["processor"][way])),
            ]
            for way in row["seconds"]
        ]
        header = ["way", "seconds", f"to {first}", "by processor time"]
        tables.print_table(row["part"], header, cells)
    print(quiet_note(rows))
    print(f"Kept in {tables.keep_rows('layouts', rows, ('part',))}")


def random_weights() -> dict[str, jax.Array]:
    """Stacked matrices [layers, in, out] that keep the size of what passes through them."""
    draw = np.random.default_rng(0)
    return {
        name: jnp.array(draw.standard_normal((LAYERS, *shape)) * shape[0] ** -0.5, jnp.float32)
        for name, shape in SEPARATE.items()
    }


def layer(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    """All products of a layer, with as little as possible beside them."""
    if "qkv" in weights:
        query, key, value = jnp.split(x @ weights["qkv"], (WIDTH, WIDTH + KEYS), axis=-1)
        gate, up = jnp.split(x @ weights["gate_up"], 2, axis=-1)
    else:
        query, key, value, gate, up = (
            x @ weights[name] for name in ("query", "key", "value", "gate", "up")
        )
    shared = jnp.concatenate([key, value, key], axis=-1)
    return 0.5 * (x + (query + shared) @ weights["output"] + (gate + up) @ weights["down"])


def scanned(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    """Layer by layer over stacked weights."""
    return jax.lax.scan(lambda x, own: (layer(x, own), None), x, weights)[0]


def unrolled(x: jax.Array, weights: list[dict[str, jax.Array]]) -> jax.Array:
    """Layer by layer over separate arrays."""
    for own in weights:
        x = layer(x, own)
    return x


def decoding_ways(weights: dict[str, jax.Array], batch: int) -> dict[str, Callable]:
    """{way: function that runs it}."""
    x = jnp.array(np.random.default_rng(1).standard_normal((batch, WIDTH)), jnp.float32)
    fused = {name: weights[name] for name in ("output", "down")}
    fused["qkv"] = jnp.concatenate([weights[name] for name in ("query", "key", "value")], axis=-1)
    fused["gate_up"] = jnp.concatenate([weights["gate"], weights["up"]], axis=-1)
    apart = [{name: jnp.array(x[i]) for name, x in weights.items()} for i in range(LAYERS)]
    return {
        SCANNED: functools.partial(jax.jit(scanned), x, weights),
        FUSED: functools.partial(jax.jit(scanned), x, fused),
        UNROLLED: functools.partial(jax.jit(unrolled), x, apart),
    }


def gradient_ways(weights: dict[str, jax.Array]) -> dict[str, Callable]:
    """{way: function that runs it}."""
    x = jnp.array(np.random.default_rng(2).standard_normal((4, 256, WIDTH)), jnp.float32)

    def flat(weights):
        return jnp.square(scanned(x.reshape(-1, WIDTH), weights)).sum()

    def kept(weights):
        return jnp.square(scanned(x, weights)).sum()

    return {
        FLAT: functools.partial(jax.jit(jax.grad(flat)), weights),
        KEPT: functools.partial(jax.jit(jax.grad(kept)), weights),
    }


def measure(part: str, ways: dict[str, Callable], args: argparse.Namespace) -> dict:
    """The same numbers first, then turns."""
    outputs = [jax.device_get(run()) for run in ways.values()]
    for other in outputs[1:]:
        for left, right in zip(jax.tree.leaves(outputs[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3 * np.abs(left).max())

    def turn() -> dict[str, list[float]]:
        took = {}
        for way, run in ways.items():
            started = time.perf_counter(), time.process_time()
            for _ in range(args.inner):
                jax.block_until_ready(run())
            ended = time.perf_counter(), time.process_time()
            took[way] = [(end - start) / args.inner for start, end in zip(started, ended)]
        return took

    turns = quiet_turns(turn, [ThisProcess()], args.repeats, args.patience)
    row = {"part": part, "others_share": [share for _, share in turns]}
    for place, name in enumerate(("seconds", "processor")):
        row[name] = {way: [took[way][place] for took, _ in turns] for way in ways}
    return row | {"machine": tables.machine()}


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batches", type=positives, default=[1, 16], help="rows that are decoded (1,16)")
    add("--inner", type=positive, default=5, help="runs of a way in each turn (5)")
    add("--repeats", type=positive, default=5, help="turns (5)")
    add("--patience", type=float, default=0, help="minutes a table to wait for quiet turns (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
