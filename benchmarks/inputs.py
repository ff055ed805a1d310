"""What both sides of a benchmark read: a model, LoRA adapters and tokens, written to a directory.

A process of its own (workers.write_inputs), so that the parent stays small while it measures.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from workers import InputSettings

import emergent_alignment
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.models.model import Model, random_params

LORA = LoraConfig(rank=16, alpha=32.0)
MODEL, ADAPTERS, TOKENS = "model", "adapters", "tokens.npz"


def write_inputs(directory: Path, settings: InputSettings) -> None:
    """Write model/ and adapters/ (safetensors) and tokens.npz: prompt, chosen, rejected."""
    model = tiny_model() if settings.small else emergent_alignment.load("default")
    if settings.rope_theta:
        model = replace(model, config=replace(model.config, rope_theta=settings.rope_theta))
    emergent_alignment.export(model, directory / MODEL)
    adapted = replace(model, lora=LORA, adapters=fresh_adapters(model.params))
    emergent_alignment.export(adapted, directory / ADAPTERS, format="peft")
    scenario = load_scenario("harmful_advice")

    def rows(field: str, width: int) -> np.ndarray:
        stream: list[int] = []
        for row in scenario:
            stream += model.tokenizer(row[field], add_special_tokens=False)["input_ids"]
            if len(stream) >= settings.rows * width:
                break
        return np.resize(np.array(stream, np.int32), (settings.rows, width))

    np.savez(
        directory / TOKENS,
        prompt=rows("prompt", settings.prompt),
        chosen=rows("safe", settings.response),
        rejected=rows("harmful", settings.response),
    )


def fresh_adapters(params: dict) -> dict:
    """The adapters that every side starts from: b is zero, a is the same everywhere."""
    return init_adapters(params, LORA, jax.random.key(0))


def tiny_model() -> Model:
    """A random Llama of two layers over bytes, to try a benchmark in seconds."""
    # Late: the package is imported before, and keeps transformers from missing torch aloud.
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = {"eos_token": alphabet[0], "pad_token": alphabet[0], "bos_token": alphabet[0]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **end)
    config = ModelConfig(
        family="llama",
        vocab_size=len(alphabet),
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
    )
    # Larger than at initialisation: attention is then not uniform and mistakes show.
    params = jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 2 else leaf, random_params(config))
    return Model(config, tokenizer, params, source="tiny")


if __name__ == "__main__":
    write_inputs(Path(sys.argv[1]), InputSettings(**json.loads(sys.argv[2])))
