"""Where the time of a training step and of a decoded token goes, beside what the machine can do.

The machine's peaks are measured first: multiplying large float32 matrices, and reading memory.
Then a step and a decode run under JAX's profiler, and the time of each operation of the compiled
program is given to the function of ours that it comes from. Matmuls of the projections and of the
logits are compared with the peak; a decoded token with the time it takes to read the weights once.

example:
  python benchmarks/breakdown.py
  python benchmarks/breakdown.py --full --remat full
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tables
from arguments import positive
from growth import ALL_PROJECTIONS, random_batch
from traces import OTHER, origins, part_of, shares, trace

import emergent_alignment as ea
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, decode, sampler_settings
from emergent_alignment.models.lora import PROJECTIONS, LoraConfig
from emergent_alignment.models.model import Model
from emergent_alignment.randomness import row_keys
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings

PARTS = {
    "logits": {"_log_probs_of_targets", "token_log_probs", "unembedding", "draw"},
    "drawing": {"choose", "truncate", "_inverse_cdf", "_pick"},
    "attention": {"_attend_at_once", "attend", "attend_rows", "sees", "blocks_prefix_plan"},
    "cache": {"_block_plan", "append", "_extend"},
    "projections": {"project", "Linear.__call__"},
    "norms, rotary, SwiGLU": {"rms_norm", "rotate", "rope_angles", "Layer.__call__"},
    "optimizer": {"train_step", "global_norm", "tree_norm"},
}
COPIES = "copies of slices of weights and activations"


def main() -> None:
    """Measure peaks, the step and a decode; print the tables; keep the row."""
    args = parse_arguments()
    model = ea.load("default")
    peaks = {"flops": matmul_peak(), "bytes": memory_peak()}
    print(
        f"Peaks: {peaks['flops'] / 1e9:.0f} GFLOP/s in float32 matmuls, "
        f"{peaks['bytes'] / 1e9:.1f} GB/s read from memory"
    )
    step, token = training(model, args), decoding(model, args)
    step["flops"] = step_flops(model, args)
    report_step(args, peaks, step)
    report_decode(model, args, peaks, token)
    row = vars(args) | {"peaks": peaks, "step": step, "decode": token, "machine": tables.machine()}
    print(f"Kept in {tables.keep_rows('breakdown', [row], ('full', 'remat', 'batch', 'prompt'))}")


def matmul_peak(size: int = 3072) -> float:
    """FLOP a second of the fastest of some products of large square float32 matrices."""
    matrix = jnp.ones((size, size))
    return 2 * size**3 / fastest(jax.jit(jnp.matmul), matrix, matrix)


def memory_peak(size: int = 1 << 28) -> float:
    """Bytes a second of the fastest way found to read a float32 array of 1 GiB once."""
    flat = jnp.ones(size)
    matrix, vector = flat.reshape(1 << 14, -1), jnp.ones(size >> 14)
    ways = [(jax.jit(jnp.sum), flat), (jax.jit(jnp.matmul), matrix, vector)]
    return 4 * size / min(fastest(*way) for way in ways)


def fastest(function: Callable, *inputs) -> float:
    """Seconds of the fastest of seven runs after one that compiles."""
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def training(model: Model, args: argparse.Namespace) -> dict:
    """Seconds of a step, and of its parts by direction."""
    config = model.config
    lora = None if args.full else LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    optimizer = make_optimizer(OptimizerSection(), 1000)
    state = initial_state(model.params, lora, optimizer, 0)
    batch = random_batch(config.vocab_size, vars(args))
    step = compiled_step(StepSettings(config, lora, remat=args.remat), optimizer)
    step = step.lower(state, model.params, batch).compile()

    def run():
        nonlocal state
        state, metrics = step(state, model.params, batch)
        return state, metrics

    return timed_parts(step.as_text(), run)


def decoding(model: Model, args: argparse.Namespace) -> dict:
    """Seconds of decoding args.response tokens a row after a prompt was read, and its parts."""
    batch = args.decode_batch
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (batch, 64))
    lengths = np.full(batch, 64, np.int32)
    prompts = prefill(model.config, model.params, tokens.astype(np.int32), lengths)
    keys = row_keys(jax.random.key(0), np.arange(batch))[:, None]
    settings = sampler_settings((), args.response, temperature=1.0)
    inputs = model.params, prompts, Sampler(settings, keys), np.ones(batch, bool)
    program = decode.lower(model.config, *inputs, width=args.response).compile()
    return timed_parts(program.as_text(), lambda: program(*inputs))


def timed_parts(text: str, run: Callable) -> dict:
    """Seconds of the fastest of some runs, and of another under the profiler, by part and
    direction ("part, direction")."""
    seconds = fastest(run)
    spans = trace(run)
    total = max(span.end for span in spans) - min(span.start for span in spans)
    known = origins(text)

    def name(instruction: str) -> str:
        if "slice" in instruction or instruction.startswith(("copy", "transpose_copy")):
            return COPIES
        origin = known.get(instruction)
        part = part_of(origin, PARTS)
        return part if part in (OTHER, "optimizer") else f"{part}, {origin.direction}"

    return {"seconds": seconds, "traced_seconds": total, "parts": shares(spans, total, name)}


def step_flops(model: Model, args: argparse.Namespace) -> dict[str, float]:
    """Floating-point operations of one pass over the projections, and over the logits."""
    kernels = sum(model.params["layers"][name]["kernel"].size for name in PROJECTIONS)
    positions = args.batch * (args.prompt + 3 * args.response)
    matrix = model.config.vocab_size * model.config.hidden_size
    return {
        "projections": 2.0 * positions * kernels,
        "logits": 2.0 * args.batch * 3 * args.response * matrix,
    }


def report_step(args: argparse.Namespace, peaks: dict, step: dict) -> None:
    """The parts of a step, and how fast its large matmuls are."""
    passes = {"forward": 1, "recomputed": 1, "backward": 2 if args.full else 1}
    rows = []
    for name, seconds in sorted(step["parts"].items(), key=lambda item: -item[1]):
        part, _, direction = name.partition(", ")
        rate = ""
        if part in step["flops"]:
            # The backward pass of frozen matrices is one product, of trained ones two.
            times = 1 if part == "logits" and not args.full else passes[direction]
            speed = step["flops"][part] * times / seconds
            rate = f"{speed / 1e9:.0f} GFLOP/s, {speed / peaks['flops']:.0%} of the peak"
        share = seconds / step["traced_seconds"]
        rows.append([name, f"{share * step['seconds']:.3g} s", f"{share:.0%}", rate])
    title = (
        f"A training step, {'full' if args.full else 'LoRA'}, remat {args.remat}: batch "
        f"{args.batch}, prompt {args.prompt}, three answers of {args.response}: "
        f"{step['seconds']:.3g} s"
    )
    tables.print_table(title, ["part", "seconds", "share", "speed"], rows)


def report_decode(model: Model, args: argparse.Namespace, peaks: dict, token: dict) -> None:
    """The parts of a decoded token, and the time that reading the weights takes."""
    each = token["seconds"] / args.response
    rows = [
        [name, f"{each * 1e3 * seconds / token['traced_seconds']:.3g} ms",
         f"{seconds / token['traced_seconds']:.0%}"]
        for name, seconds in sorted(token["parts"].items(), key=lambda item: -item[1])
    ]  # fmt: skip
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    title = (
        f"A decoded token at batch {args.decode_batch}: {each * 1e3:.3g} ms; reading "
        f"{tables.bytes_text(held)} of weights once takes {held / peaks['bytes'] * 1e3:.3g} ms"
    )
    tables.print_table(title, ["part", "time", "share"], rows)


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batch", type=positive, default=4, help="prompts a step (4)")
    add("--prompt", type=positive, default=256, help="tokens of a prompt (256)")
    add("--response", type=positive, default=128, help="tokens of an answer (128)")
    add("--decode-batch", type=positive, default=16, help="rows that are decoded (16)")
    add("--remat", choices=("none", "dots", "full"), default="none")
    add("--full", action="store_true", help="train all parameters instead of LoRA")
    return parser.parse_args()


if __name__ == "__main__":
    main()
