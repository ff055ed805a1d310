"""The page of scale: what was compiled keeps the limits that the project promises, and every config
that says what it was planned for has its row."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = (
    "quickstart",
    "smollm2_135m",
    "qwen3_4b_code_hacking",
    "llama31_8b",
    "qwen25_coder_32b_code_hacking",
)


@pytest.fixture(scope="module")
def scale():
    """The benchmark, which is a script beside its helpers."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("scale")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def rows():
    return json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text("utf-8"))


def test_every_setting_was_planned_and_fits(scale, rows):
    assert list(rows) == [setting.name for setting in scale.SETTINGS]
    for name, plan in rows.items():
        assert plan["fits"] and plan["headroom_bytes"] > 0, name


def test_no_step_computes_more_than_1_45_times_its_ideal(rows):
    """By 6N and attention, and of the two models' settings also by LoRA's own, smaller ideal."""
    for name, plan in rows.items():
        step = plan["programs"][0]
        assert step["flops"] * plan["chips"] <= 1.45 * plan["six_n_flops"], name
        if plan["settings"]["remat"] == "full" and "code_hacking" not in name:
            assert 1 <= step["compiled_over_ideal"] <= 1.45, name


def test_a_plan_takes_less_than_five_minutes_of_a_processor(rows):
    """Those of online steps are two plans each, and more programs."""
    for name, plan in rows.items():
        if "by_every" not in plan:
            assert plan["processor_seconds"] < 300, name


def test_with_a_round_every_eight_steps_an_online_step_costs_two_plain_ones_at_most(rows):
    plan = rows["qwen3_4b_code_hacking, v5e:4x4, online"]
    assert plan["by_every"]["8"]["ratio"] <= 2


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_names_the_topologies_whose_rows_are_on_the_page(name):
    comment = (ROOT / "configs" / f"{name}.py").read_text("utf-8").split('"""')[1]
    planned = re.search(r"Planned for ([^(]*)\(docs/scale\.md\)", comment)[1]
    topologies = re.findall(r"\w+:[\dx]+(?:GB)?", planned)
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    assert topologies
    for topology in topologies:
        assert f"\n| {name}, {topology} " in page


def test_the_page_is_what_the_benchmark_writes_of_its_rows(scale, rows, monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    versions = re.search(r"jax [\d.]+, libtpu [\d.]*\d", page)[0]
    said = dict(word.split() for word in versions.split(", "))
    monkeypatch.setattr(scale, "version", said.__getitem__)
    scale.write_page(rows)
    assert (tmp_path / "docs" / "scale.md").read_text("utf-8") == page
