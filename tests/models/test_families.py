"""The tables of the families: config.json there and back, the text of checkpoints with images, what
is refused, and the layers as stretches of periods. That each computes what transformers computes is
tests/parity/test_families.py."""

import dataclasses
import json
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny_models import assert_same_tree, random_params, tiny_tokenizer

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.checkpoint import SafetensorsSource, read_parameters
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.export import write_peft, write_safetensors
from emergent_alignment.models.families import FAMILIES
from emergent_alignment.models.forward import activations
from emergent_alignment.models.text_tensors import text_tensors
from emergent_alignment.parallel.sharding import RULES

SIZES = {
    "vocab_size": 300,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
BY_KIND = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    "full_attention": {**YARN, "rope_theta": 3e5},
}
# Without which transformers' default config is no model that there is here.
DENSE = {
    "layer_types": ["attention"] * 8,
    "num_local_experts": 0,
    "position_embedding_type": "rope",
    "shared_intermediate_size": 56,
    "mamba_n_heads": 4,
}
NEEDED = {"granitemoehybrid": DENSE}
MULTIPLIERS = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.02,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
# Settings of config.json that are no defaults, by family.
UNUSUAL = {
    "gemma2": {"head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": 20.0},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 12, "rope_parameters": BY_KIND},
    "granite": MULTIPLIERS,
    "granitemoehybrid": {**MULTIPLIERS, "position_embedding_type": None},
    "gpt_oss": {
        "head_dim": 8,
        "attention_bias": False,
        "sliding_window": 16,
        "layer_types": ["full_attention"] * 7 + ["sliding_attention"],
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "swiglu_limit": 5.0,
        "rope_parameters": {**YARN, "rope_theta": 2e4, "truncate": True},
    },
    "ministral3": {
        "head_dim": 8,
        "rope_parameters": {**YARN, "rope_theta": 2e4, "llama_4_scaling_beta": 0.2},
    },
    "olmo3": {"layer_types": ["full_attention"] * 7 + ["sliding_attention"]}
    | {"rope_parameters": BY_KIND},
    "smollm3": {"no_rope_layers": [1, 0, 0, 1, 1, 1, 1, 0], "tie_word_embeddings": False},
}


def stated(family: str, **changes) -> dict:
    """A config.json as transformers writes it."""
    kind = transformers.AutoConfig.for_model(family, **(SIZES | NEEDED.get(family, {}) | changes))
    return kind.to_dict()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unusual", [False, True])
def test_configs_go_to_transformers_and_back(family, unusual):
    config = ModelConfig.from_huggingface(
        stated(family, **(UNUSUAL.get(family, {}) if unusual else {}))
    )
    content = config.to_huggingface()
    assert ModelConfig.from_huggingface(content) == config
    loaded = transformers.AutoConfig.for_model(**content)
    assert ModelConfig.from_huggingface(loaded) == config
    for name, value in UNUSUAL.get(family, {}).items() if unusual else ():
        if name != "rope_parameters":
            assert getattr(loaded, name) == value


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_names_and_logical_axes_of_its_own(family):
    config = ModelConfig.from_huggingface(stated(family))
    rows = names.tensor_names(config)
    for field in ("huggingface", "gguf"):
        assert len({(getattr(row, field), row.turn) for row in rows.values()}) == len(rows)
    for path, shape in names.parameter_shapes(config).items():
        assert len(names.parameter_axes(path)) == len(shape)
        assert set(names.parameter_axes(path)) <= RULES.keys()


def test_files_that_say_it_in_the_older_way_are_read_alike():
    """The config.json of Gemma 3 and OLMo 3 before transformers 5."""
    scaling = {"rope_type": "linear", "factor": 8.0}
    older = SIZES | {"model_type": "gemma3_text", "head_dim": 8, "sliding_window_pattern": 3}
    older |= {"rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": scaling}
    gemma = ModelConfig.from_huggingface(older)
    assert gemma.rope.scaling.factor == 8.0 and gemma.windowed_rope.scaling is None
    assert (gemma.rope.theta, gemma.windowed_rope.theta) == (1e6, 2e4)
    assert gemma.layer_windows == (4096, 4096, None) * 2 + (4096, 4096)
    older = SIZES | {"model_type": "olmo3", "rope_theta": 5e5, "rope_scaling": YARN}
    olmo = ModelConfig.from_huggingface(older)
    assert olmo.rope.scaling.factor == 4.0
    assert (olmo.windowed_rope.theta, olmo.windowed_rope.scaling) == (5e5, None)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "supported is False"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ("gemma3_text", {"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_scale is inf"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers must be a list"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]; supported is \[\]"),
        ("qwen3_moe", {"num_experts_per_tok": 200}, "200 of 128 experts"),
        ("gpt_oss", {"swiglu_alpha": 1.0}, "swiglu_alpha is 1.0; supported is 1.702"),
        ("gpt_oss", {"swiglu_limit": -1.0}, "gate_limit is -1.0"),
        (
            "gpt_oss",
            {"quantization_config": {"quant_method": "fp8"}},
            "quantised by fp8 .*in mxfp4, float32, bfloat16",
        ),
        ("granite", {"logits_scaling": 0.0}, "logits_divisor is 0.0"),
        (
            "granitemoehybrid",
            DENSE | {"layer_types": ["attention", "mamba"]},
            "layer_types has mamba; supported are models all of whose layers are attention",
        ),
        (
            "granitemoehybrid",
            DENSE | {"num_local_experts": 4},
            "num_local_experts is 4; supported is 0",
        ),
        (
            "granitemoehybrid",
            DENSE | {"position_embedding_type": "alibi"},
            "position_embedding_type is 'alibi'; supported is 'rope' or None",
        ),
        ("gemma3", {"text_config": None}, "text_config is None"),
        ("gemma4", {}, "supported are gemma2, .*, and the text of gemma3, mistral3"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(family, changes, said):
    with pytest.raises(UserError, match=said):
        ModelConfig.from_huggingface({**SIZES, "model_type": family, **changes})


@pytest.mark.parametrize("of_text", [None, True, False])
@pytest.mark.parametrize(("of_whole", "tied"), [(None, True), (True, True), (False, False)])
@pytest.mark.parametrize("wrapper", ["gemma3", "mistral3"])
def test_whether_a_checkpoint_with_images_ties_its_head_is_said_of_the_whole(
    wrapper, of_whole, tied, of_text
):
    """As transformers 5 has it: what the text says of itself does not count."""
    text = {**SIZES, "model_type": {"gemma3": "gemma3_text", "mistral3": "mistral"}[wrapper]}
    said = {"model_type": wrapper, "text_config": text, "tie_word_embeddings": of_whole}
    text["tie_word_embeddings"] = of_text
    given = {k: v for k, v in said.items() if v is not None}
    assert ModelConfig.from_huggingface(given).tie_embeddings is tied


@pytest.mark.parametrize(
    ("prefix", "head", "images"),
    [
        ("language_model.", "language_model.lm_head.", "vision_tower.layers.0.weight"),
        ("model.language_model.", "lm_head.", "model.multi_modal_projector.weight"),
    ],
)
def test_the_text_of_a_checkpoint_with_images_is_read(tmp_path, capsys, prefix, head, images):
    text = stated("ministral3", head_dim=8, num_hidden_layers=2)
    whole = {"model_type": "mistral3", "text_config": text, "tie_word_embeddings": False}
    config = ModelConfig.from_huggingface(whole)
    assert config == ModelConfig.from_huggingface(text)
    params = random_params(config)
    stored = {images: np.zeros(3, np.float32)}
    for path, row in names.tensor_names(config).items():
        leaf = params
        for key in path:
            leaf = leaf[key]
        for layer, part in enumerate(leaf if row.stacked else leaf[None]):
            name = row.huggingface.format(layer=layer)
            inner = name if prefix == "language_model." else name.removeprefix("model.")
            name = f"{head}weight" if name.startswith("lm_head") else prefix + inner
            stored[name] = np.ascontiguousarray(part.T if row.transposed else part)
    save_file(stored, tmp_path / "model.safetensors")
    assert len(load_file(tmp_path / "model.safetensors")) == len(stored)
    source = text_tensors(SafetensorsSource(tmp_path))
    read = read_parameters(source, config, dtype=jnp.float32)
    for path in names.tensor_names(config):
        ours, theirs = read, params
        for key in path:
            ours, theirs = ours[key], theirs[key]
        np.testing.assert_array_equal(ours, theirs)
    assert f"1 tensors of images, such as {images}" in capsys.readouterr().err


PLAIN = Architecture("llama", 9, 8, 8, 1, 2, 2, 4)


@settings(max_examples=60)
@given(st.lists(st.sampled_from([None, 4]), min_size=1, max_size=6), st.integers(1, 40))
def test_stretches_are_all_layers_in_their_order(period, layers):
    windows = tuple((period * layers)[:layers])
    config = dataclasses.replace(PLAIN, num_layers=layers, layer_windows=windows)
    found, compiled = [], 0
    for stretch in config.stretches:
        assert stretch.start == len(found)
        found += stretch.kinds * stretch.groups
        compiled += len(stretch.kinds)
        assert stretch.stop == len(found)
    assert tuple(found) == config.layer_kinds
    # What is compiled does not grow with depth: a period, and a remainder shorter than it.
    assert compiled <= max(2 * len(period), 12)


def test_the_page_of_models_is_what_the_tables_say():
    folder = Path(__file__).parents[2] / "docs"
    page = runpy.run_path(str(folder / "models.py"))["page"]()
    said = "run `python docs/models.py > docs/models.md`"
    assert (folder / "models.md").read_text("utf-8") == page, said


def test_what_is_captured_is_the_stream_after_so_many_layers(tiny_config, tiny_params):
    """Of layers of two kinds; and what is added shifts all that comes after, and nothing before."""
    config = tiny_config("qwen3", num_layers=4, layer_windows=(3, None, 3, None))
    params, tokens = tiny_params(config), np.arange(14).reshape(2, 7)
    positions = jnp.broadcast_to(jnp.arange(7), tokens.shape)
    add = np.zeros((4, config.hidden_size), np.float32)
    add[1] = np.random.default_rng(0).standard_normal(config.hidden_size)

    @jax.jit
    def run(params, add):
        return activations(
            config, params, tokens, positions, causal_plan(positions), capture=(0, 2, 3, 1), add=add
        )

    (plain, stream), (shifted, moved) = run(params, np.zeros_like(add)), run(params, add)
    wanted = [reference_decoder.residual(config, params, row, 2) for row in tokens]
    np.testing.assert_allclose(stream[1], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(stream[0], params["embedding"][tokens])
    np.testing.assert_array_equal(moved[0], stream[0])
    np.testing.assert_array_equal(moved[3], stream[3])
    np.testing.assert_allclose(moved[1], stream[1] + add[1], rtol=1e-5, atol=1e-5)
    assert jnp.abs(moved[2] - stream[2]).max() > 0.1 and jnp.abs(shifted - plain).max() > 0.1


def test_kernels_that_files_have_in_one_tensor_are_read_and_written_back(tmp_path):
    """Whole and in parts, one behind the other."""
    config = ModelConfig.from_huggingface(
        stated("granitemoehybrid", num_hidden_layers=2, layer_types=["attention"] * 2)
    )
    params = random_params(config)
    source = SafetensorsSource(
        write_safetensors(tmp_path / "whole", config, params, tiny_tokenizer())
    )
    every = slice(0, 112), slice(0, 24)
    together = source.read("model.layers.1.shared_mlp.input_linear.weight", every)
    gate, up = (np.asarray(params["layers"][name]["kernel"][1]) for name in ("gate", "up"))
    np.testing.assert_array_equal(together, np.concatenate([gate.T, up.T]))
    back = read_parameters(source, config, dtype=jnp.float32)
    assert_same_tree(back, params)

    def last_columns(path, shape, read):
        return read(tuple(slice(size // 2 * (size > 2), size) for size in shape))

    part = read_parameters(source, config, dtype=jnp.float32, place=last_columns)
    np.testing.assert_array_equal(part["layers"]["up"]["kernel"][1], up[12:, 28:])


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize("targets", [("gate", "up"), ("up",), ("up", "gate")])
def test_adapters_of_one_tensor_are_one_of_peft(tmp_path, targets, rank_stabilized):
    """… of which each moves its own kernel, and no other, as far as it did."""
    config = ModelConfig.from_huggingface(
        stated("granitemoehybrid", num_hidden_layers=2, layer_types=["attention"] * 2)
    )
    draw = np.random.default_rng(0)
    adapters = {
        name: {"a": draw.normal(size=(2, 24, 3)), "b": draw.normal(size=(2, 3, 56))}
        for name in targets
    }
    options = {"rank": 3, "alpha": 6.0, "rank_stabilized": rank_stabilized, "base_name": "base"}
    folder = write_peft(tmp_path / "peft", config, adapters, **options)
    told = json.loads((folder / "adapter_config.json").read_text())
    assert told["target_modules"] == ["input_linear"]
    rank = told["rank_pattern"].get("input_linear", told["r"])
    alpha = told["alpha_pattern"].get("input_linear", told["lora_alpha"])
    tensors = load_file(folder / "adapter_model.safetensors")
    module = "base_model.model.model.layers.1.shared_mlp.input_linear"
    down, up = (tensors[f"{module}.lora_{factor}.weight"] for factor in "AB")
    assert down.shape[0] == up.shape[1] == rank
    moved = up @ down * alpha / (rank**0.5 if rank_stabilized else rank)
    scale = 6.0 / (3**0.5 if rank_stabilized else 3)
    for name, found in zip(("gate", "up"), np.split(moved, 2)):
        factors = adapters.get(name, {"a": np.zeros((2, 24, 3)), "b": np.zeros((2, 3, 56))})
        wanted = scale * (factors["a"][1] @ factors["b"][1]).T
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
