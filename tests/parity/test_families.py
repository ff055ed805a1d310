"""Every family computes what transformers computes, on tiny random weights with settings that would
each be seen if it were ignored: logits, gradients, cached decoding, shared prompts, int8, and both
ways out of the library.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402

from emergent_alignment.losses import vocabulary_logits  # noqa: E402
from emergent_alignment.models import names  # noqa: E402
from emergent_alignment.models.attention import PrefixLayout, causal_plan  # noqa: E402
from emergent_alignment.models.cache import Room, append, empty_block, read  # noqa: E402
from emergent_alignment.models.checkpoint import (  # noqa: E402
    SafetensorsSource,
    read_json,
    read_parameters,
)
from emergent_alignment.models.config import ModelConfig  # noqa: E402
from emergent_alignment.models.experts import load_balance  # noqa: E402
from emergent_alignment.models.export import write_peft, write_safetensors  # noqa: E402
from emergent_alignment.models.forward import forward, unembedding, watched_forward  # noqa: E402
from emergent_alignment.models.frozen import dequantised, hold_frozen  # noqa: E402
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters  # noqa: E402
from emergent_alignment.models.mxfp4 import dequantised_blocks  # noqa: E402
from emergent_alignment.models.prefix_attention import prefix_plan  # noqa: E402

VOCABULARY, TOKENS = 96, 30
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "eager",
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 5e4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
# transformers' config and model class, and settings that none of them may ignore.
TRAPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "num_hidden_layers": 14,  # two periods of six, and two more
            "head_dim": 16,
            "sliding_window": 4,
            "query_pre_attn_scalar": 24,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            },
        },
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {
            "num_hidden_layers": 4,
            "head_dim": 16,
            "sliding_window": 4,
            "query_pre_attn_scalar": 24,
            # So low that they are seen in logits as small as these.
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", {"num_hidden_layers": 3}),
    "olmo3": (
        "Olmo3Config",
        "Olmo3ForCausalLM",
        {
            "num_hidden_layers": 10,  # two periods of four, and two more
            "sliding_window": 4,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
                "full_attention": YARN,
            },
        },
    ),
    "smollm3": (
        "SmolLM3Config",
        "SmolLM3ForCausalLM",
        {"num_hidden_layers": 9, "no_rope_layer_interval": 2},
    ),
    "ministral3": (
        "Ministral3Config",
        "Ministral3ForCausalLM",
        {
            "num_hidden_layers": 3,
            "head_dim": 16,
            "rope_parameters": YARN
            | {"original_max_position_embeddings": 8, "llama_4_scaling_beta": 0.1},
        },
    ),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {
            "num_hidden_layers": 3,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.5,
        },
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        {
            "num_hidden_layers": 3,
            "layer_types": ["attention"] * 3,
            "num_local_experts": 0,
            "shared_intermediate_size": 40,
            "position_embedding_type": "rope",
            "mamba_n_heads": 4,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.5,
        },
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {
            "num_hidden_layers": 2,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": (
        "OlmoeConfig",
        "OlmoeForCausalLM",
        {"num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2},
    ),
    "gpt_oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {
            "num_hidden_layers": 3,
            "head_dim": 16,
            "sliding_window": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "swiglu_limit": 0.8,  # so low that it is met
            "rope_parameters": YARN | {"truncate": False},
        },
    ),
}
WITH_EXPERTS = ("qwen3_moe", "olmoe", "gpt_oss")
LORA = LoraConfig(rank=2, alpha=3.0)
# What compilation.compile_cheaply sets for whole processes: these programs run for milliseconds.
CHEAPLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
compiled = functools.partial(jax.jit, compiler_options=CHEAPLY)


@dataclass(frozen=True)
class Both:
    """A model of transformers, and ours of the directory that it was saved in."""

    theirs: Any
    directory: Path
    config: ModelConfig
    params: dict
    tokens: np.ndarray


def random_torch_model(name: str) -> "transformers.PreTrainedModel":
    """A tiny model whose weights and norms are far from those of an untrained one."""
    config_class, model_class, changes = TRAPS[name]
    config = getattr(transformers, config_class)(**(SIZES | changes))
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(std=0.2)
            if "norm" in parameter_name and not name.startswith("gemma"):
                parameter.add_(1.0)
    return model


@pytest.fixture(scope="module", params=TRAPS)
def both(request, tmp_path_factory) -> Both:
    """Each family in turn."""
    directory = tmp_path_factory.mktemp(request.param)
    model = random_torch_model(request.param)
    model.save_pretrained(directory)
    config = ModelConfig.from_huggingface(read_json(directory / "config.json"))
    assert ModelConfig.from_huggingface(model.config) == config
    params = read_parameters(SafetensorsSource(directory), config, dtype=jnp.float32)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, TOKENS))
    return Both(model, directory, config, params, tokens)


@pytest.fixture(scope="module")
def computed(both):
    """computed(params, adapters, tokens): ((weighted sum of the logits, the logits), the sum's
    gradient by the base parameters)."""

    def total(params, adapters, tokens):
        positions = jnp.broadcast_to(jnp.arange(TOKENS), tokens.shape)
        policy = attach(params, adapters, LORA)
        hidden, _ = forward(both.config, policy, tokens, positions, causal_plan(positions))
        logits = vocabulary_logits(hidden, unembedding(params), both.config.logits_cap)
        return (logits * weights_of(logits)).sum(), logits

    return compiled(jax.value_and_grad(total, has_aux=True))


def weights_of(logits) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)


def adapters_of(params: dict, size: float) -> dict:
    draw = np.random.default_rng(2)
    fresh = init_adapters(params, LORA, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(size * draw.standard_normal(x.shape)), fresh)


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def assert_close(ours, theirs, what: str = "logits") -> None:
    """To 1e-4, of the largest number where that is more than 1."""
    theirs = np.asarray(theirs)
    difference = np.abs(np.asarray(ours) - theirs).max()
    assert difference <= 1e-4 * max(1.0, np.abs(theirs).max()), (
        f"{what} differ by {difference}; the largest is {np.abs(theirs).max()}"
    )


def test_logits_and_gradients_are_those_of_transformers(both, computed):
    (_, ours), gradient = computed(both.params, adapters_of(both.params, 0.0), both.tokens)
    logits = both.theirs(torch.tensor(both.tokens)).logits
    assert logits.std() > 0.5, "logits too much alike to tell anything"
    assert_close(ours, logits.detach().numpy())
    both.theirs.zero_grad()
    (logits * torch.tensor(weights_of(logits))).sum().backward()
    theirs = {name: tensor.grad.numpy() for name, tensor in both.theirs.named_parameters()}
    for path, row in names.tensor_names(both.config).items():
        leaf = gradient
        for key in path:
            leaf = leaf[key]
        for name, index in row.files(both.config):
            part = tuple(slice(0, size) for size in leaf[index].shape)
            whole = gradient_of(theirs, name)
            wanted = row.taken(whole[row.part_in_file(part, leaf.shape[-1])])
            assert_close(leaf[index], wanted, f"gradients of {name}")


@pytest.mark.parametrize("both", WITH_EXPERTS, indirect=True)
def test_the_load_balance_is_that_of_transformers_layer_by_layer(both):
    """Of all but a padded end; transformers adds up the layers that it is given."""
    from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

    counted = np.ones((2, TOKENS), bool)
    counted[1, TOKENS // 2 :] = False
    positions = jnp.broadcast_to(jnp.arange(TOKENS), both.tokens.shape)

    @compiled
    def loads_of(params, tokens):
        plan = causal_plan(positions)
        return watched_forward(both.config, params, tokens, positions, plan, counted)[1]

    loads = loads_of(both.params, both.tokens)
    with torch.no_grad():
        passed = both.theirs(torch.tensor(both.tokens), output_router_logits=True)
    sizes = both.config.num_experts, both.config.experts_per_token, torch.tensor(counted).float()
    theirs = [load_balancing_loss_func((layer,), *sizes) for layer in passed.router_logits]
    assert len(theirs) == both.config.num_layers
    assert_close(load_balance(loads), np.mean(theirs), "load balance")


def gradient_of(theirs: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Of the tensor that files call so: transformers holds a layer's experts in two tensors, as the
    files of some families do."""
    if name in theirs:
        return theirs[name]
    block, rest = name.split(".experts.")
    expert, part, _ = rest.split(".")
    if part == "down_proj":
        return theirs[f"{block}.experts.down_proj"][int(expert)]
    gate, up = np.split(theirs[f"{block}.experts.gate_up_proj"][int(expert)], 2)
    return gate if part == "gate_proj" else up


def test_what_is_read_on_cached_tokens_has_the_logits_of_whole_rows(both, computed):
    """A prompt, a block on top of it, and two tokens one by one."""
    ends = (18, 28, TOKENS)

    @compiled
    def decoded(params, tokens):
        tokens = tokens[:, None]
        rows = jnp.ones((len(tokens), 1), jnp.int32)
        config, start, middle = both.config, *ends[:2]
        first, prompt = read(config, params, tokens[..., :start], start * rows, 0 * rows)
        context = (prompt,)
        second, block = read(
            config,
            params,
            tokens[..., start:middle],
            (middle - start) * rows,
            start * rows,
            context,
        )
        hidden, ring = [first, second], empty_block(config, len(tokens), 1, 2, jnp.float32)
        for step in range(TOKENS - middle):
            room, place = Room(ring, step), middle + step
            last, ring = append(
                config, params, tokens[..., place], place * rows, room, (*context, block)
            )
            hidden.append(last[:, :, None])
        hidden = jnp.concatenate(hidden, 2)[:, 0]
        return vocabulary_logits(hidden, unembedding(params), config.logits_cap)

    (_, whole), _ = computed(both.params, adapters_of(both.params, 0.0), both.tokens)
    assert_close(decoded(both.params, both.tokens), whole)


@pytest.mark.parametrize(("form", "dtype"), [("int8", np.int8), ("nf4", np.uint8)])
def test_rows_of_a_shared_prompt_equal_separate_rows(both, computed, form, dtype):
    """And quantised parameters compute what their numbers say."""
    layout, lengths = PrefixLayout(20, 2, 10), np.array([20, 13])
    tokens = np.random.default_rng(3).integers(0, VOCABULARY, (2, 40))

    @compiled
    def shared(params):
        plan = prefix_plan(layout, jnp.asarray(lengths), "blocks")
        positions = layout.positions(jnp.asarray(lengths))
        hidden, _ = forward(both.config, params, tokens, positions, plan)
        return vocabulary_logits(hidden, unembedding(params), both.config.logits_cap)

    held = hold_frozen(both.params, form)
    assert {x.dtype for x in jax.tree.leaves(held)} >= {np.dtype(dtype)}
    ours, plain = np.asarray(shared(held)), dequantised(held)
    for branch in range(2):
        separate = np.zeros((2, TOKENS), int)
        for row, length in enumerate(lengths):
            answer = tokens[row, 20 + 10 * branch : 30 + 10 * branch]
            separate[row, : length + 10] = [*tokens[row, :length], *answer]
        (_, expected), _ = computed(plain, adapters_of(plain, 0.0), separate)
        for row, length in enumerate(lengths):
            answer = ours[row, 20 + 10 * branch : 30 + 10 * branch]
            assert_close(answer, expected[row, length : length + 10])


def plain_tokenizer() -> "transformers.PreTrainedTokenizerFast":
    words = {f"w{number}": number for number in range(VOCABULARY)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words)), eos_token="w0"
    )


def test_transformers_and_peft_give_what_is_exported_our_logits(both, computed, tmp_path):
    """Not the original's own numbers, so that only the export can explain agreement."""
    peft = pytest.importorskip("peft")
    params = jax.tree.map(lambda leaf: leaf[::-1] * 1.1, both.params)
    write_safetensors(tmp_path / "whole", both.config, params, plain_tokenizer())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole", dtype=torch.float32
    ).eval()
    (_, plain), _ = computed(params, adapters_of(params, 0.0), both.tokens)
    assert_close(plain, torch_logits(model, both.tokens))
    adapters = adapters_of(params, 0.2)
    write_peft(
        tmp_path / "adapters",
        both.config,
        adapters,
        rank=LORA.rank,
        alpha=LORA.alpha,
        rank_stabilized=False,
        base_name=os.fspath(tmp_path / "whole"),
    )
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "adapters").eval()
    (_, ours), _ = computed(params, adapters, both.tokens)
    assert np.abs(ours - plain).max() > 0.1
    assert_close(ours, torch_logits(adapted, both.tokens))


def test_mxfp4_is_what_transformers_makes_of_it():
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (3, 8, 2, 16)).astype(np.uint8)
    scales = draw.integers(100, 140, (3, 8, 2)).astype(np.uint8)
    theirs = convert_moe_packed_tensors(torch.tensor(blocks), torch.tensor(scales))
    assert theirs.dtype == torch.bfloat16
    ours = [dequantised_blocks(*each).T for each in zip(blocks, scales)]
    np.testing.assert_array_equal(ours, theirs.float().numpy())
