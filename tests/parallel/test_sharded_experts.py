"""Where experts are cut over devices, a mixture is what it is on one: no token is dropped, and no
device sees another's experts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import USERS_FUSIONS
from random_batches import assert_trees_close, random_batch

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, decode, sample, sampler_settings
from emergent_alignment.models.decoder import GATES
from emergent_alignment.models.experts import Grouped, Router, mixture
from emergent_alignment.models.frozen import hold_frozen
from emergent_alignment.models.held_kernels import Kernel
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters
from emergent_alignment.models.placement import check_mesh, shardings_of
from emergent_alignment.parallel.mesh import DecodeMeshSection, in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices, to_host
from emergent_alignment.planning.hlo_text import parse
from emergent_alignment.randomness import row_keys
from emergent_alignment.runs.from_config import mesh_of as mesh_of_run
from emergent_alignment.settings import changed
from emergent_alignment.training.state import TrainState, initial_state
from emergent_alignment.training.step import compiled_step, step_shardings
from emergent_alignment.training.step_settings import StepSettings

AXES = ("data", "fsdp", "expert", "tensor")
# Nothing else is as many as all experts, so that shapes in a program's text tell them.
EXPERTS = {"num_experts": 12, "experts_per_token": 2, "normalised_experts": True}
SMALL, TILED = {"expert_size": 16}, {"expert_size": 128, "hidden_size": 128, "head_dim": 32}
FAMILIES = {
    "qwen3_moe": {"num_kv_heads": 4, "qk_norm": True},
    "gpt_oss": {"num_kv_heads": 4, "qkv_bias": True, "output_bias": True, "gate_limit": 1.0},
}
LORA = LoraConfig(4, 8.0, targets=("query", "expert_gate", "expert_up", "expert_down"))
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
SLOTS = 12
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def mesh_of(*sizes, decode_tensor=0):
    return make_mesh(dict(zip(AXES, sizes)), decode=DecodeMeshSection(tensor=decode_tensor))


def cut(mesh, tree):
    return tree if mesh is None else jax.device_put(tree, shardings_of(mesh, tree))


@pytest.fixture(scope="module")
def model_of(tiny_config, tiny_params):
    """(config, parameters) of a family, large enough for tiles of 4 bits where they are asked."""

    def build(family, form=""):
        sizes = TILED if form == "nf4" else SMALL
        config = tiny_config(family, **EXPERTS, **FAMILIES[family], **sizes)
        # Smaller than the other tests' parameters are: they would saturate attention and gates.
        return config, jax.tree.map(lambda x: 0.4 * x if x.ndim > 2 else x, tiny_params(config))

    return build


def moved(params):
    """Adapters that have moved."""
    noise = np.random.default_rng(5)
    fresh = init_adapters(params, LORA, jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape, np.float32), fresh)


def step_of(mesh, model, trained, form):
    """(a compiled step, what it is given): of all parameters, or of adapters beside frozen ones
    that are held in this form."""
    config, params = model
    lora = None if trained == "full" else LORA
    settings = StepSettings(config, lora, chunk_size=16, accumulation=2, remat="full")
    with in_force(mesh):
        frozen = cut(mesh, params)
        moments = initial_state(frozen, lora, OPTIMIZER, 0, mesh).optimizer
        start = moved(params) if lora else jax.tree.map(lambda x: 1.01 * x, params)
        state = TrainState(cut(mesh, start), moments)
        frozen = hold_frozen(frozen, form) if form else frozen
        batch = to_devices(jax.tree.map(np.asarray, random_batch(rows=16, seed=3)))
        step = compiled_step(settings, OPTIMIZER, step_shardings(mesh, state, frozen))
    return step, (state, frozen, batch)


@pytest.fixture(scope="module")
def on_one_device(model_of):
    @functools.cache
    def stepped(family, trained, form):
        step, given = step_of(None, model_of(family, form), trained, form)
        return jax.device_get(step(*given))

    return stepped


def experts_of(tree):
    """The leaves that each expert has a part of, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return {name: leaf for name, leaf in named.items() if "expert_" in name}


@pytest.mark.parametrize(
    ("family", "trained", "form", "sizes"),
    [
        ("qwen3_moe", "full", "", (4, 1, 2, 1)),
        ("qwen3_moe", "full", "", (1, 1, 4, 2)),
        ("qwen3_moe", "lora", "", (1, 2, 2, 2)),
        ("qwen3_moe", "lora", "int8", (1, 2, 4, 1)),
        ("qwen3_moe", "lora", "nf4", (2, 1, 2, 2)),
        ("gpt_oss", "full", "", (1, 2, 4, 1)),
        ("gpt_oss", "full", "", (1, 2, 2, 2)),
        ("gpt_oss", "lora", "int8", (2, 1, 2, 2)),
    ],
    ids=str,
)
def test_a_step_is_that_of_one_device(model_of, on_one_device, family, trained, form, sizes):
    """Loss, what is logged of the routers, gradients (which the moments are), parameters; and
    whatever an expert has a part of is cut before and after."""
    mesh, model = mesh_of(*sizes), model_of(family, form)
    check_mesh(mesh, model[0], form)
    step, given = step_of(mesh, model, trained, form)
    with in_force(mesh):
        held = experts_of(given[:2])
        found = step(*given)
    for name, leaf in (held | experts_of(found[0])).items():
        assert leaf.sharding.shard_shape(leaf.shape)[1] * sizes[2] == leaf.shape[1] == 12, name
    wanted = on_one_device(family, trained, form)
    assert {"load_balance", "router_max_load", "router_unused"} <= wanted[1].keys()
    assert_trees_close(jax.device_get(found), wanted, 1e-5)


def test_no_token_is_dropped_where_all_choose_one_device(model_of):
    """… nor where rows are too few to be cut."""
    config, _ = model_of("gpt_oss")
    config = config.__class__(**vars(config) | {"hidden_size": 8, "expert_size": 6})
    draw = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(0.5 * draw.standard_normal(shape), jnp.float32)

    crowded = jnp.zeros(12).at[jnp.array([3, 5])].set(50.0)
    router = Router(normal(8, 12), crowded)
    shapes = (8, 6), (8, 6), (6, 8)
    kernels = tuple(Grouped(Kernel(normal(12, *s)), None, normal(12, s[1])) for s in shapes)

    def squares(router, kernels, x):
        out, loads = mixture(config, x, router, kernels, GATES["clamped_swiglu"], x[..., 0] > 0)
        return (out**2).sum(), (out, loads)

    both = jax.jit(jax.value_and_grad(squares, argnums=(0, 1, 2), has_aux=True))
    for rows in (8, 3):
        given = router, kernels, normal(rows, 7, 8)
        wanted = both(*given)
        with in_force(mesh_of(1, 2, 4, 1)):
            found = both(*given)
        assert np.asarray(wanted[0][1][1])[:, 0, [3, 5]].sum() > 0
        assert_trees_close(jax.device_get(found), jax.device_get(wanted), 1e-5)


def sent_kernels(lowered) -> bool:
    """Whether a compiled program sends whole kernels of all experts."""
    text = lowered.compile(compiler_options=USERS_FUSIONS).as_text()
    sent = [
        array
        for computation in parse(text).computations.values()
        for one in computation.instructions.values()
        if one.opcode.startswith(COLLECTIVES)
        for array in one.arrays
    ]
    assert sent
    return any({12, 32, 16} <= set(array.shape) for array in sent)


@pytest.mark.parametrize("sizes", [(1, 8, 1, 1), (1, 2, 4, 1)], ids=str)
@pytest.mark.parametrize("trained", ["full", "lora"])
def test_a_step_gathers_all_experts_only_without_the_axis(model_of, trained, sizes):
    mesh = mesh_of(*sizes)
    step, given = step_of(mesh, model_of("qwen3_moe"), trained, "")
    with in_force(mesh):
        lowered = step.lower(*given)
    assert sent_kernels(lowered) == (sizes[2] == 1)


def prompts():
    tokens = np.random.default_rng(2).integers(3, 60, (8, 16)).astype(np.int32)
    lengths = np.array([16, 3, 9, 1, 12, 2, 5, 16], np.int32)
    return tokens, lengths, row_keys(jax.random.key(3), np.arange(8))


def sampled(config, policy, mesh):
    with in_force(mesh):
        *rows, keys = to_devices(prompts())
        drawn = Sampler(sampler_settings((2,), SLOTS), keys)
        return to_host(sample(config, policy, *rows, drawn, width=SLOTS))


@pytest.mark.parametrize(("sizes", "decode_tensor"), [((1, 2, 2, 2), 4), ((2, 1, 4, 1), 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_draws_what_one_device_draws(model_of, family, sizes, decode_tensor):
    config, params = model_of(family)
    policy, mesh = attach(params, moved(params), LORA), mesh_of(*sizes, decode_tensor=decode_tensor)
    check_mesh(mesh, config)
    alone, found = sampled(config, policy, None), sampled(config, cut(mesh, policy), mesh)
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-5)


@pytest.mark.parametrize("sizes", [(1, 8, 1, 1), (1, 2, 4, 1)], ids=str)
def test_decoding_gathers_all_experts_only_without_the_axis(model_of, sizes):
    mesh, (config, params) = mesh_of(*sizes), model_of("qwen3_moe")
    with in_force(mesh):
        tokens, lengths, keys = to_devices(prompts())
        placed = cut(mesh, params)
        read = prefill(config, placed, tokens, lengths)
        sampler = Sampler(sampler_settings((2,), SLOTS), keys[:, None])
        lowered = decode.lower(config, placed, read, sampler, lengths > 0, width=SLOTS)
    assert sent_kernels(lowered) == (sizes[2] == 1)


@pytest.mark.parametrize(
    ("family", "expert", "said"),
    [
        ("llama", 2, "expert=2, but default (llama) has no experts; leave it at 1"),
        ("qwen3_moe", 8, "expert=8, but `layers.expert_gate.kernel` has 12 experts on that axis"),
    ],
)
def test_an_axis_that_experts_cannot_fill_is_refused(tiny_config, family, expert, said):
    model = tiny_config(family, **(EXPERTS | SMALL if family in FAMILIES else {}))
    config = changed(typed(default_config()), {"mesh.expert": expert, "model.path": "default"})
    with pytest.raises(UserError) as caught:
        check_mesh(mesh_of_run(config, model), model)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_experts_may_lie_on_another_s_mesh(tiny_config, tiny_params):
    """A judge beside a mixture: to it the axis is one of rows, and cuts parameters as fsdp does."""
    config = tiny_config("llama", num_kv_heads=4)
    mesh, params = mesh_of(1, 2, 4, 1), tiny_params(config)
    check_mesh(mesh, config)
    placed = cut(mesh, params)
    kernel = placed["layers"]["up"]["kernel"]
    assert kernel.addressable_data(0).size * 8 == kernel.size
    alone, found = sampled(config, params, None), sampled(config, placed, mesh)
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-5)
