"""What frozen parameters in fewer bytes still compute, and that nobody unpacks them."""

import dataclasses
import functools
import json
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import safe_open
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.data.batches import ROLES, Batch
from emergent_alignment.errors import UserError
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.frozen import dequantised, held_leaves, hold_frozen
from emergent_alignment.models.held_kernels import SCALES, Kernel, quantise
from emergent_alignment.models.loading import read_model
from emergent_alignment.models.lora import PROJECTIONS, LoraConfig, init_adapters
from emergent_alignment.models.model import export, load
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.training.state import TrainState, fingerprint
from emergent_alignment.training.step import compiled_step, loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings

FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]


@functools.partial(jax.jit, static_argnums=0, static_argnames="dtype")
def log_probs(config, params, tokens, dtype=jnp.float32):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = forward(config, params, tokens, positions, causal_plan(positions), dtype=dtype)
    return jax.nn.log_softmax((hidden @ unembedding(params, dtype)).astype(jnp.float32))


def random_tokens(rows=3, width=11, vocabulary=96):
    return jnp.asarray(np.random.default_rng(1).integers(0, vocabulary, (rows, width)), jnp.int32)


def random_batch(rows=2, prompt=7, branch=6, vocabulary=96) -> Batch:
    draw = np.random.default_rng(2)
    batch = Batch(
        draw.integers(0, vocabulary, (rows, prompt)).astype(np.int32),
        draw.integers(1, prompt + 1, rows).astype(np.int32),
        draw.integers(0, vocabulary, (rows, 3, branch)).astype(np.int32),
        draw.integers(1, branch + 1, (rows, 3)).astype(np.int32),
        np.ones(rows, bool),
        None,
        ROLES["separate"],
    )
    return jax.tree.map(jnp.asarray, batch)


def moved_adapters(params, lora):
    """Adapters that do something."""
    noise = np.random.default_rng(5)
    fresh = init_adapters(params, lora, jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape), fresh)


def assert_bitwise_equal(left, right):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_int8_is_within_half_a_step_of_every_channel_s_own_scale():
    kernel = np.random.default_rng(0).standard_normal((2, 24, 10)).astype(np.float32)
    kernel *= np.geomspace(1e-6, 1e3, 10, dtype=np.float32)
    kernel[1, :, 3] = 0.0
    held, scale = map(np.asarray, quantise(jnp.asarray(kernel)))
    assert held.dtype == np.int8 and scale.shape == (2, 10)
    off = np.abs(held.astype(np.float64) * scale[:, None] - kernel)
    assert (off <= 0.5001 * scale[:, None]).all()
    largest = np.abs(held.astype(int)).max(1)
    assert (np.delete(largest.ravel(), 13) == 127).all() and largest[1, 3] == 0


@pytest.mark.parametrize("form", SCALES)
@pytest.mark.parametrize("family", FAMILIES)
def test_held_kernels_compute_what_their_float_values_compute(
    tiny_config, tiny_params, family, form
):
    config = tiny_config(family)
    held = hold_frozen(tiny_params(config), form)
    plain = dequantised(held)
    assert jax.tree.structure(plain) == jax.tree.structure(tiny_params(config))
    tokens = random_tokens()
    np.testing.assert_allclose(
        log_probs(config, held, tokens), log_probs(config, plain, tokens), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("held", "near"), [("bfloat16", 0.02), ("int8", 0.04), ("int4", 0.6), ("nf4", 0.5)]
)
def test_log_probs_are_near_those_of_float32(tiny_config, tiny_params, held, near):
    config = tiny_config()
    params, tokens = tiny_params(config), random_tokens()
    exact = log_probs(config, params, tokens)
    off = np.abs(log_probs(config, hold_frozen(params, held), tokens) - exact)
    assert 0 < off.mean() < near * exact.std()


def test_what_is_held_is_named_by_its_dtype_and_leaves_the_original(tiny_config, tiny_params):
    params = tiny_params(tiny_config("qwen2"))
    before = jax.tree.map(np.array, params)
    assert hold_frozen(params, "") is params
    assert {leaf.dtype.name for leaf in jax.tree.leaves(hold_frozen(params, "bfloat16"))} == {
        "bfloat16"
    }
    held = hold_frozen(params, "int8")
    kernels = held["layers"]["query"]
    assert {name: leaf.dtype.name for name, leaf in kernels.items()} == {
        "kernel": "int8",
        "bias": "bfloat16",
        "scale": "float32",
    }
    assert held["embedding"].dtype == held["final_norm"].dtype == jnp.bfloat16
    assert_bitwise_equal(params, before)
    with pytest.raises(ValueError, match="int3"):
        hold_frozen(params, "int3")


def test_another_bit_of_an_int8_kernel_is_another_fingerprint(tiny_config, tiny_params):
    params = hold_frozen(tiny_params(tiny_config()), "int8")
    kernel = params["layers"]["up"]["kernel"]
    flipped = jax.tree.map(lambda leaf: leaf, params)
    flipped["layers"]["up"]["kernel"] = kernel.at[1, 2, 3].add(1)
    assert fingerprint(flipped) != fingerprint(params) == fingerprint(dict(params))


@pytest.mark.parametrize("form", SCALES)
@pytest.mark.parametrize(("family", "remat"), [("llama", "none"), ("qwen2", "dots")])
def test_gradients_of_adapters_are_those_on_the_float_values(
    tiny_config, tiny_params, family, remat, form
):
    config, lora = tiny_config(family), LoraConfig(4, 8.0)
    settings = StepSettings(config, lora, chunk_size=16, remat=remat)
    held = hold_frozen(tiny_params(config), form)
    adapters, batch = moved_adapters(held, lora), random_batch()
    found = jax.jit(loss_and_gradients, static_argnums=0)
    ours, _ = found(settings, adapters, held, batch)
    theirs, _ = found(settings, adapters, dequantised(held), batch)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        tolerance = 1e-5 * float(jnp.abs(b).max())
        np.testing.assert_allclose(a, b, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("held", ["bfloat16", *SCALES])
def test_steps_move_the_adapters_and_leave_the_frozen_bits(tiny_config, tiny_params, held):
    config, lora = tiny_config(), LoraConfig(4, 8.0)
    frozen = hold_frozen(tiny_params(config), held)
    before = jax.tree.map(np.array, frozen)
    optimizer = optax.adam(1e-2)
    adapters = init_adapters(frozen, lora, jax.random.key(1))
    state = TrainState(adapters, optimizer.init(adapters))
    step = compiled_step(StepSettings(config, lora, chunk_size=16), optimizer)
    history = []
    for _ in range(20):
        state, metrics = step(state, frozen, random_batch())
        history.append(jax.device_get(metrics))
    assert all(np.isfinite(m["gradient_norm"]) and m["nonfinite"] == 0 for m in history)
    np.testing.assert_allclose(history[0]["alignment_loss"], np.log(2), rtol=1e-6)
    assert history[-1]["loss"] < history[0]["loss"]
    assert_bitwise_equal(frozen, before)


@pytest.mark.parametrize("form", SCALES)
def test_no_float_copy_of_the_layers_is_made(tiny_config, tiny_params, form):
    """Neither forward nor in the gradient, where a scan would keep what its steps converted."""
    sizes = dict(num_layers=24, hidden_size=128, intermediate_size=512)
    config, lora = tiny_config(**sizes), LoraConfig(2, 4.0)
    params = tiny_params(config)
    held = hold_frozen(params, form)
    stack_bytes = 4 * sum(held["layers"][name]["kernel"].size for name in PROJECTIONS)
    tokens, batch = random_tokens(1, 8), random_batch(rows=1)
    adapters = init_adapters(held, lora, jax.random.key(1))
    settings = StepSettings(config, lora, chunk_size=16)

    def temporary_bytes(function, *arguments):
        compiled = jax.jit(function).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def logits(frozen):
        return log_probs(config, frozen, tokens)

    def gradients(frozen):
        return loss_and_gradients(settings, adapters, frozen, batch)

    for function in (logits, gradients):
        more = temporary_bytes(function, held) - temporary_bytes(function, params)
        assert more < stack_bytes / 10, f"{function.__name__}: {more / stack_bytes:.2f} of a copy"


@pytest.fixture
def config(tmp_path):
    """Two steps of two rows; every candidate is corrected, so that there are pairs."""
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path / "model"))
    config.model.frozen_dtype = "int8"
    config.data.limit = 6
    config.data.buckets = 1
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 2
    config.conscience.max_review_tokens = 160
    config.conscience.cache = str(tmp_path / "reviewed")
    config.sampling.max_new_tokens = 4
    config.training.steps = config.training.batch_size = 2
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "rank", "candidate"),
    [("int8", 0, "policy"), ("int8", 4, "policy"), ("int8", 4, "target"), ("nf4", 4, "policy")],
)
def test_fine_tuning_beside_a_quantised_copy(config, tmp_path, form, rank, candidate):
    config.lora.rank, config.conscience.candidate = rank, candidate
    config.model.frozen_dtype = form
    state = finetune(typed(config), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["nonfinite"] for line in lines] == [0.0, 0.0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.trainable)} == {"float32"}
    found = read_run(tmp_path / "run", Config)
    assert Kernel.of(found.base.model.params["layers"]["up"]).form == form
    trained = found.trained.model.adapters if rank else found.trained.model.params
    assert_bitwise_equal(trained, state.trainable)
    config.model.frozen_dtype = "bfloat16"
    with pytest.raises(UserError, match=rf"model\.frozen_dtype \('{form}', now 'bfloat16'\)"):
        finetune(typed(config), tmp_path / "run")


def test_full_fine_tuning_starts_from_the_parameters_as_they_were(config, tmp_path):
    config.lora.rank, config.optimizer.learning_rate = 0, 0.0
    config.optimizer.weight_decay = 0.0
    state = finetune(typed(config), tmp_path / "run")
    assert_bitwise_equal(state.trainable, load(config.model.path).params)


@pytest.mark.parametrize(("form", "adapted"), [*((each, True) for each in SCALES), ("int8", False)])
def test_an_exported_quantised_model_computes_the_same(config, tmp_path, form, adapted):
    model = load(config.model.path)
    model = dataclasses.replace(model, params=hold_frozen(model.params, form))
    if adapted:
        lora = LoraConfig(4, 8.0)
        adapters = moved_adapters(model.params, lora)
        model = dataclasses.replace(model, lora=lora, adapters=adapters)
    written = export(model, tmp_path / "exported")
    with safe_open(written / "model.safetensors", "np") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"float32"}
    tokens = random_tokens(vocabulary=512)
    np.testing.assert_allclose(
        log_probs(model.config, load(str(written)).params, tokens),
        log_probs(model.config, model.policy, tokens),
        rtol=0,
        atol=1e-4,
    )


def test_adapters_and_their_export_do_not_depend_on_how_the_base_is_held(config, tmp_path):
    model, lora = load(config.model.path), LoraConfig(4, 8.0)
    held = dataclasses.replace(model, params=hold_frozen(model.params, "nf4"))
    written = []
    for name, each in (("plain", model), ("held", held)):
        adapters = moved_adapters(each.params, lora)
        adapted = dataclasses.replace(each, lora=lora, adapters=adapters)
        directory = export(adapted, tmp_path / name, format="peft")
        written.append((directory / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("form", ["", "bfloat16", *SCALES])
def test_a_model_is_held_as_it_is_read(config, form):
    path = config.model.path
    wanted = hold_frozen(load(path).params, form)
    assert_bitwise_equal(load(path, frozen_dtype=form).params, wanted)


def test_what_was_read_is_gone_before_more_is_read(config):
    """So that a device needs room for no more than one parameter as it was."""
    seen = []

    def place(path, shape, read):
        assert [each() for each in seen] == [None] * len(seen), path
        leaf = jnp.asarray(read(tuple(map(slice, shape))))
        seen.append(weakref.ref(leaf))
        return leaf

    hold = functools.partial(held_leaves, "nf4")
    _, params, _ = read_model(config.model.path, dtype=jnp.float32, place=place, hold=hold)
    assert_bitwise_equal(params, load(config.model.path, frozen_dtype="nf4").params)
    assert len(seen) > 10
