"""`emergent-alignment config`: what may be set, by section and by field, and the page of it."""

from pathlib import Path

import pytest

from emergent_alignment.cli.config import markdown
from emergent_alignment.cli.main import main
from emergent_alignment.config import Config
from emergent_alignment.settings import fields_of

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def said(capsys, *words):
    assert main(["config", *words]) == 0
    return capsys.readouterr().out


def test_the_page_is_what_the_command_prints():
    assert PAGE.read_text("utf-8") == "\n".join(markdown()) + "\n", (
        "run `emergent-alignment config --markdown > docs/settings.md`"
    )


def test_every_field_is_printed_once_with_its_explanation(capsys):
    printed = said(capsys)
    joined = " ".join(printed.split())
    for field in fields_of(Config):
        assert field.explanation in joined, field.name
    assert printed.count("\n  ") == printed.count(" = ") + printed.count("\n      ")
    assert printed.count(" = ") == len(list(fields_of(Config)))


def test_a_section_is_printed_with_those_within_it(capsys):
    printed = said(capsys, "self_align.reinforcement")
    assert "self_align.reinforcement.policy: " in printed and "\ntraining: " not in printed
    assert "clip_high = 0.2   (more than 0)" in printed
    assert "guards = bundled" in printed and "seeds = bundled" not in printed


@pytest.mark.parametrize("name", ["training.steps", "config.training.steps"])
def test_a_field_is_printed_alone(capsys, name):
    assert said(capsys, name) == (
        "training: Steps, batches and what is kept of a run.\n"
        "  steps = 100   (more than 0)\n      Steps of the run.\n"
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("trainin", "did you mean training?"),
        ("training.step", "did you mean training.steps?"),
        ("rollouts", "did you mean self_align.reinforcement.policy.rollouts?"),
        ("zzzzzz", "`emergent-alignment config` has all"),
    ],
)
def test_a_name_that_is_none_is_one_line_with_the_nearest(capsys, name, near):
    assert main(["config", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"config.{name}: there is no such section or field" in line and near in line


def test_it_sets_nothing(capsys):
    assert main(["config", "--config.seed=3"]) == 2
    assert "sets nothing" in capsys.readouterr().err
