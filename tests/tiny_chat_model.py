"""A tiny chat model on disk: random weights, a BPE tokenizer trained on the bundled advice, and
a chat template; everything a run needs, in well under a second."""

import functools
import json
from pathlib import Path

import jax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.export import write_safetensors
from emergent_alignment.models.model import random_params

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_byte_level(texts: list[str], num_tokens: int, special: list[str]) -> Tokenizer:
    """Byte-level BPE of some texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def tiny_texts() -> list[str]:
    """What tiny tokenizers are trained on: always the same, whatever the bundled scenarios say."""
    lines = Path(__file__).with_name("tiny_texts.jsonl").read_text("utf-8").splitlines()
    return [text for line in lines for text in json.loads(line).values()]


@functools.cache
def tiny_chat_tokenizer() -> PreTrainedTokenizerFast:
    """512 tokens, with Yes and No among them; <|im_end|> ends an answer."""
    backend = train_byte_level([*tiny_texts(), *["Yes No yes no"] * 200], 512, SPECIAL)
    built = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    built.chat_template = TEMPLATE
    return built


def tiny_chat_config() -> ModelConfig:
    """Two layers of width 32."""
    return ModelConfig(
        family="llama",
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
    )


def write_tiny_chat_model(directory: Path, seed: int = 0) -> Path:
    """A directory that `load` reads. Weights are spread enough that answers differ."""
    params = jax.tree.map(lambda leaf: leaf * 4, random_params(tiny_chat_config(), seed))
    return write_safetensors(directory, tiny_chat_config(), params, tiny_chat_tokenizer())
