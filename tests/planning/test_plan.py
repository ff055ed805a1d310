"""Plans on CPU devices: what is added up, what is advised, what is refused."""

import importlib.metadata
import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from emergent_alignment.cli.config_files import typed
from emergent_alignment.cli.main import main
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.models.loading import read_model_config
from emergent_alignment.models.model import random_params
from emergent_alignment.models.names import parameter_shapes
from emergent_alignment.models.placement import decode_mesh
from emergent_alignment.parallel.chips import Chip
from emergent_alignment.parallel.mesh import MeshSection, shape_text, sizes_text
from emergent_alignment.planning import search, topologies
from emergent_alignment.planning.advice import first_change, verdict
from emergent_alignment.planning.hlo import Cost
from emergent_alignment.planning.online import online_step
from emergent_alignment.planning.plan import (
    Memory,
    Plan,
    ProgramPlan,
    make_plan,
    refused_bytes,
    settings_of,
)
from emergent_alignment.planning.programs import held, pairs_apart, training_step
from emergent_alignment.planning.report import as_json
from emergent_alignment.planning.roofline import Roofline, peak_share, roofline
from emergent_alignment.planning.topologies import Target
from emergent_alignment.runs.config import decided
from emergent_alignment.settings import changed


@pytest.fixture(scope="module")
def config():
    config = default_config()
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    config.conscience.max_review_tokens = 64
    config.sampling.max_new_tokens = 40
    config.training.batch_size = 2
    config.conscience.batch_size = 2
    config.training.accumulation = 2
    return typed(config)


@pytest.fixture(scope="module")
def target():
    return Target("gpu:1x1GB", Chip("GPU", 10**9), jax.devices()[:1], compiled_for_cpu=True)


@pytest.fixture(scope="module")
def plan(config, target, tiny_config):
    # One branch: the smallest step to compile.
    plain = changed(config, {"conscience.enabled": False})
    return make_plan(plain, tiny_config("qwen3", hidden_size=128), target)


def test_the_step_is_compiled_and_costs_more_than_the_ideal(plan):
    (step,) = plan.programs
    assert step.name == "training step" and step.cost is not None
    assert 1 <= step.cost.flops / step.ideal_flops < 2
    assert plan.fits and plan.headroom < 10**9


def test_given_pairs_are_rows_of_the_step_alone_and_beside_a_task(config, target, tiny_config):
    """Lowered: the objective takes such a batch."""
    given = {"conscience.enabled": False, "data.preferences": "mine", "data.preference_rows": 6}
    steps = {}
    for name, changes in (
        ("task", {"conscience.enabled": False}),
        ("alone", given | {"data.train": ""}),
        ("both", given),
    ):
        run = held(changed(config, changes), tiny_config("qwen3"), target)
        steps[name] = training_step(run, target)
        assert steps[name].lower().out_info is not None
    assert steps["alone"].shape.startswith("6 rows of 32 + 2 × 32 tokens")
    task, alone, both = (steps[name].ideal_flops for name in ("task", "alone", "both"))
    assert both == task + alone and min(task, alone) > 0
    heard = changed(config, {"data.preferences": "mine", "conscience.pool_rows": 4})
    layout, rows = pairs_apart(decided(heard, listens_to="pool"))
    assert (layout.branch, rows) == (40, 4 + 2), "the longer of what is sampled and given"


def test_what_is_held_are_the_bytes_of_the_arrays(plan, tiny_config):
    params = jax.eval_shape(lambda: random_params(tiny_config("qwen3", hidden_size=128)))
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    for program in plan.programs:
        held = program.memory.held
        assert held["frozen copy"] == size
        assert held["optimizer"] == 2 * held["parameters"] + 8  # two moments and two counts
        assert program.memory.total > sum(held.values())


def test_a_plan_as_json_says_where_each_figure_is_from(plan):
    found = json.loads(json.dumps(as_json(plan)))
    assert "CPU" in found["sources"]["given, temporaries, made, code, total"]
    assert found["programs"][0]["memory"]["total"] == plan.programs[0].memory.total
    assert found["programs"][0]["compiled_over_ideal"] > 1


def refused_plan(config, target, needed=5 * 10**9, held=10**6, **mesh):
    sizes = {"data": 1, "fsdp": 1, "expert": 1, "tensor": 1} | mesh
    memory = Memory({"parameters": held, "frozen copy": 0, "optimizer": 0}, needed=needed)
    step = ProgramPlan("training step", "", memory, 1.0, None, None, None, 0.0)
    return Plan(target, sizes, settings_of(config), [step])


def test_the_first_thing_to_change_follows_what_is_large(config, target):
    assert first_change(refused_plan(config, target)) == "config.training.remat=full"
    settings = settings_of(config) | {"remat": "full", "accumulation": 1}
    plan = replace(refused_plan(config, target), settings=settings)
    assert first_change(plan) == "config.training.accumulation=2"
    heavy = refused_plan(config, target, held=4 * 10**9)
    assert first_change(heavy) == "config.model.frozen_dtype=bfloat16"
    for larger, smaller in (("bfloat16", "int8"), ("int8", "nf4")):
        settings = settings_of(config) | {"frozen_dtype": larger, "lora.rank": 16}
        plan = replace(heavy, settings=settings)
        assert first_change(plan) == f"config.model.frozen_dtype={smaller}"
    heavy = refused_plan(config, target, held=4 * 10**9, data=4, fsdp=2)
    assert first_change(heavy) == "config.mesh.data=1 and config.mesh.fsdp=8"
    text = verdict(heavy)
    assert text.startswith("does not fit: the training step needs 3.73 GiB a chip more"), text


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
         "temporaries (400.00G) exceeds available HBM (15.75G).", 400 << 30),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.",
         int(20.5 * (1 << 30))),
        ("INTERNAL: something else, Used 20.50G of 15.75G", None),
    ],
)  # fmt: skip
def test_what_the_compiler_says_when_it_refuses(message, found):
    assert refused_bytes(message) == found


def test_the_roofline_is_the_slowest_of_three():
    chip = Chip("chip", 1, peak_flops=100.0, hbm_bandwidth=10.0, ici_bandwidth=1.0)
    limits = roofline(chip, Cost(flops=200.0, hbm_bytes=30.0))
    assert (limits.seconds, limits.limit) == (3.0, "HBM")
    assert peak_share(chip, 4, ideal_flops=600.0, seconds=3.0) == 0.5
    assert roofline(Chip("unknown", 1), Cost()) is None
    hurried = roofline(chip, Cost(hbm_bytes=30.0, hops=2_000_000))
    assert (hurried.seconds, hurried.latency) == (5.0, 2.0)


def test_a_search_leaves_out_what_cannot_fit_and_ranks_what_was_compiled(
    config, target, tiny_config, monkeypatch
):
    compiled = []

    def fake_plan(tried, model, target, only_training):
        compiled.append((tried.training.accumulation, tried.training.remat))
        needed = 10**12 if tried.training.remat == "none" else 10**6
        return replace(refused_plan(tried, target, needed=needed), settings=settings_of(tried))

    monkeypatch.setattr(search, "make_plan", fake_plan)
    model = tiny_config("qwen3", hidden_size=128)
    found = search.search(config, model, target, 4)
    assert (found.candidates, found.too_large, len(compiled)) == (6, 0, 4)
    assert [p.fits for p in found.plans] == sorted((p.fits for p in found.plans), reverse=True)
    small = replace(target, chip=Chip("GPU", 1000))
    assert search.search(config, model, small, 4) == search.Found([], 6, 6)


@pytest.fixture
def heard(config):
    """A run that listens to 40 prompts, 16 at once, by both links of the frozen copy."""
    changes = {"training.batch_size": 40, "conscience.batch_size": 16, "conscience.every": 4}
    chain = {"conscience.chain": ("rewrite", "fresh"), "conscience.prompts": "task"}
    return changed(config, changes | chain)


def test_an_online_step_is_the_sum_of_its_programs(heard):
    names = ("training step", "prefill", "decoding", "review", "correction", "reference")
    limits = {name: Roofline(10.0**i, 0, 0) for i, name in enumerate(names)}
    online = online_step(heard, limits)
    # Three batches: candidates, two links with a request each, and what they wrote, are read.
    calls = {"prefill": 4, "decoding": 1, "review": 15, "correction": 6, "reference": 6}
    assert online.calls == calls
    assert online.round == sum(n * limits[name].seconds for name, n in calls.items())
    assert online.seconds == online.round / 4 + 1 and online.ratio == online.seconds / 1.0
    together = online_step(changed(heard, {"conscience.one_batch": True}), limits)
    assert together.calls == calls | {"correction": 3}


def test_forks_at_the_turn_are_phrases_and_beginnings_are_read(heard):
    names = ("training step", "prefill", "decoding", "review", "correction", "reference")
    limits = {name: Roofline(1.0, 0, 0) for name in names}
    changes = {"conscience.chain": ("fork", "amend"), "sampling.max_new_tokens": 64}
    whole = online_step(changed(heard, changes), limits).calls
    assert whole == {"prefill": 12, "decoding": 9, "review": 23, "reference": 6}
    at_turn = changes | {"conscience.cuts": "turn", "loss.reference": "policy"}
    turned = online_step(changed(heard, at_turn), limits).calls
    # 8 of 64 tokens; and of 40 answers 30 beginnings at most, 16 at once, for each of two links.
    assert turned == whole | {"prefill": 16, "decoding": 2, "review": 23 + 2 * 75}


def test_nothing_is_said_of_an_online_step_where_a_bound_is_missing(heard):
    limits = dict.fromkeys(("training step", "prefill", "decoding", "review"), Roofline(1, 1, 1))
    assert online_step(heard, limits) is None
    assert online_step(changed(heard, {"conscience.enabled": False}), limits) is None


def test_of_a_gpu_jax_takes_three_quarters_unless_told(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert topologies.target_of("gpu:1xH100").chip.hbm_bytes == 60 * 10**9
    assert topologies.target_of("cpu:1x16GB").chip.hbm_bytes == 16 * 10**9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert topologies.target_of("gpu:1x80GB").chip.hbm_bytes == 40 * 10**9


def test_a_search_cuts_experts_where_there_are_any():
    of_mixture, plain = (list(search._meshes(8, num_experts)) for num_experts in (12, 0))
    assert all(math.prod(sizes.values()) == 8 for sizes in of_mixture)
    assert {sizes["expert"] for sizes in of_mixture} == {1, 2, 4}
    assert [sizes for sizes in of_mixture if sizes["expert"] == 1] == plain


@pytest.mark.parametrize(
    ("memory", "tensor"), [(None, 0), (1e12, 1), (33e9, 1), (16e9, 4), (9e9, 4), (1e9, 8)]
)
def test_a_mesh_to_decode_on_is_the_smallest_whose_parameters_fit(memory, tensor):
    """Qwen3-4B in bfloat16 are 8.0 GB; 8 heads of keys are all that can be cut."""
    model = read_model_config("configs/models/Qwen3-4B")
    section = MeshSection(data=1, fsdp=16)
    assert decode_mesh(section, model, jnp.bfloat16, 16, memory).tensor == tensor
    own = changed(section, {"decode.tensor": 2})
    assert decode_mesh(own, model, jnp.bfloat16, 16, memory).tensor == 2


def test_a_mesh_to_decode_on_holds_its_own_experts():
    """Qwen3-30B-A3B in bfloat16 are 61 GB, nearly all of them experts'; 4 heads of keys are all
    that can be cut."""
    model = read_model_config("configs/models/Qwen3-30B-A3B")
    for expert, tensor in ((1, 4), (4, 1), (16, 1)):
        section = MeshSection(data=1, fsdp=16 // expert, expert=expert)
        assert decode_mesh(section, model, jnp.bfloat16, 16, 95e9).tensor == tensor


def test_the_axis_of_experts_is_told_where_there_is_one(config, target):
    plain = {"data": 1, "fsdp": 4, "expert": 1, "tensor": 2}
    assert as_json(refused_plan(config, target, **plain))["mesh"] == {
        "data": 1,
        "fsdp": 4,
        "tensor": 2,
    }
    assert (shape_text(plain), sizes_text(plain)) == ("1 × 4 × 2", "data=1, fsdp=4, tensor=2")
    cut = plain | {"expert": 2}
    assert as_json(refused_plan(config, target, **cut))["mesh"] == cut
    assert shape_text(cut) == "1 × 4 × expert 2 × 2"
    assert sizes_text(cut, " ") == "data 1, fsdp 4, expert 2, tensor 2"


def test_an_unknown_topology_names_the_known_ones(capsys):
    for topology in ("v9:4x4", "v5e:3x3", "v5e", "gpu:0x80GB", "gpu:8", "gpu:8xA1", "cpu:1xH100"):
        assert main(["plan", "--topology", topology]) == 2
        said = capsys.readouterr().err
        assert topology in said and "v5p:2x2x1" in said and said.count("\n") == 1


@pytest.mark.parametrize("installed", [None, "0.0.99"])
def test_libtpu_must_be_the_one_that_jax_asks_for(monkeypatch, installed):
    real = importlib.metadata.version

    def version(name):
        if name != "libtpu":
            return real(name)
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match=r"pip install 'libtpu==0\.0\.") as error:
        topologies.require_libtpu()
    assert "\n" not in str(error.value)


def test_the_bundled_sizes_are_those_of_the_models():
    four = read_model_config("configs/models/Qwen3-4B")
    params = jax.eval_shape(lambda: random_params(four))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_022_468_096
    large = read_model_config("configs/models/Qwen2.5-Coder-32B-Instruct")
    params = jax.eval_shape(lambda: random_params(large))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 32_763_876_352
    llama = read_model_config("configs/models/Llama-3.1-8B-Instruct")
    params = jax.eval_shape(lambda: random_params(llama))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8_030_261_248
    first = read_model_config("configs/models/LLaMA-65B")
    params = jax.eval_shape(lambda: random_params(first))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 65_285_660_672
    # As transformers counts them.
    counted = {
        "gemma-3-4b-it": 3_880_263_168,
        "gemma-3-27b-it": 27_009_346_304,
        "Qwen3-30B-A3B": 30_532_122_624,
    }
    for name, size in counted.items():
        shapes = parameter_shapes(read_model_config(f"configs/models/{name}")).values()
        assert sum(map(math.prod, shapes)) == size
