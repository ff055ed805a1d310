"""A whole plan for TPU chips, compiled by libtpu on a machine without a TPU, as a real process."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("libtpu", reason="libtpu is not installed; `make plan` installs and uses it")

SIZES = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "head_dim": 128,
    "vocab_size": 8192,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def planned(tmp_path, *words):
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text(json.dumps(SIZES))
    kept = tmp_path / "plan.json"
    command = [sys.executable, "-m", "emergent_alignment", "plan", "--json", str(kept)]
    command += [f"--config.model.path={tmp_path / 'model'}", "--config.model.dtype=bfloat16"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(kept.read_text())["plans"], done.stdout


@pytest.mark.parametrize(
    ("topology", "fsdp", "tensor", "rows"),
    [("v5e:4x4", 4, 2, 32), ("v5p:2x2x1", 4, 1, 16), ("v6e:1x1", 1, 1, 4)],
)
def test_a_run_is_planned_with_its_kernels_and_collectives(tmp_path, topology, fsdp, tensor, rows):
    mesh = [f"--config.mesh.{axis}={n}" for axis, n in (("fsdp", fsdp), ("tensor", tensor))]
    # Of a single row a chip the compiler makes no matmul, but multiplications and additions.
    settings = ["--config.lora.rank=0", "--config.training.remat=full"]
    settings += [f"--config.training.batch_size={rows}"]
    plans, text = planned(tmp_path, "--topology", topology, *mesh, *settings)
    (plan,) = plans
    step, *others = plan["programs"]
    assert {p["name"] for p in others} == {"prefill", "decoding", "review", "reference"}
    # Two forward passes with remat, one kernel of each kind backward, in each of four layers.
    assert sorted(step["kernels"].values()) == [4, 4, 8]
    assert 1.2 < step["compiled_over_ideal"] < 1.45
    for program in others:
        ratio = program["compiled_over_ideal"]
        assert 0.99 < ratio < 1.2, f"{program['name']}: {ratio}"
    assert bool(step["sent"]) == (fsdp * tensor > 1) == (step["hops"] > 0)
    assert plan["online"]["seconds"] > plan["online"]["plain"]
    assert plan["fits"] and "fits: " in text


def test_what_does_not_fit_is_said_with_what_to_change(tmp_path):
    plans, text = planned(
        tmp_path, "--topology", "v5e:1x1", "--config.training.batch_size=512",
        "--config.conscience.enabled=False", "--config.training.remat=none",
    )  # fmt: skip
    assert not plans[0]["fits"] and plans[0]["programs"][0]["memory"]["needed"]
    assert "does not fit: the training step needs" in text
    assert "change first: config.training.remat=full" in text


def test_a_search_ranks_what_it_compiled(tmp_path):
    plans, text = planned(
        tmp_path, "--topology", "v5e:2x2", "--config.training.batch_size=4", "--search", "3"
    )
    times = [plan["programs"][0]["roofline"]["seconds"] for plan in plans]
    assert len(plans) == 3 and times == sorted(times)
    assert "candidates" in text
