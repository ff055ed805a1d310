"""Our side of the sampling benchmark: generation.sampler.sample on fixed prompts."""

from pathlib import Path

import jax
import numpy as np
from inputs import MODEL, TOKENS
from worker_protocol import Step, serve

import emergent_alignment
from emergent_alignment.generation.sampler import Sampler, sample, sampler_settings
from emergent_alignment.models.model import Model


def prepare(settings: dict) -> Step:
    """settings: inputs (a directory), new_tokens. An order: batch, temperature, check."""
    directory = Path(settings["inputs"])
    model = emergent_alignment.load(str(directory / MODEL))
    prompts = np.load(directory / TOKENS)["prompt"]

    def step(order: dict) -> dict:
        rows = prompts[: order["batch"]]
        tokens, log_probs = our_sample(model, rows, order["temperature"], settings["new_tokens"])
        if not order["check"]:
            return {}
        return {"tokens": tokens.tolist(), "log_probs": log_probs.tolist()}

    return step


def our_sample(
    model: Model, prompts: np.ndarray, temperature: float, new_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """`new_tokens` more tokens for every prompt, which nothing ends early, and their log-probs."""
    batch, width = prompts.shape
    samples = sample(
        model.config,
        model.params,
        prompts,
        np.full(batch, width, np.int32),
        Sampler(
            sampler_settings((), new_tokens, temperature=temperature),
            jax.random.split(jax.random.key(0), batch),
        ),
        width=new_tokens,
    )
    jax.block_until_ready(samples)
    return np.asarray(samples.tokens), np.asarray(samples.log_probs)


if __name__ == "__main__":
    serve(prepare)
