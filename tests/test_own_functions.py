"""Functions that a config names: of a module, or an installed package's entry point."""

import math

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.own_functions import is_function_name, named_function


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that offers math.hypot as "length", and a number as "number"."""
    metadata = tmp_path / "lengths-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lengths\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[emergent_alignment.functions]\n"
        "length = math:hypot\nnumber = math:pi\nbroken = math:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_function_of_a_module_and_an_entry_point_are_found(installed):
    assert named_function("python:math.hypot", "config.x", "(x, y)") is math.hypot
    assert named_function("entry:length", "config.x", "(x, y)") is math.hypot


def test_what_names_a_function_is_told_from_other_texts():
    assert is_function_name("python:math.hypot") and is_function_name("entry:length")
    assert not is_function_name("own") and not is_function_name("Verdict: .*")


@pytest.mark.parametrize(
    "name, said",
    [
        ("entry:width", "no such entry point.*known: broken, length, number"),
        ("entry:broken", "cannot be imported.*nothing"),
        ("entry:number", "entry:number is no function of"),
    ],
)
def test_what_is_no_function_is_one_line(installed, name, said):
    with pytest.raises(UserError, match=f"config.x: .*{said}") as caught:
        named_function(name, "config.x", "(x, y)")
    assert "\n" not in str(caught.value)


def test_where_no_package_offers_any_that_is_said():
    with pytest.raises(UserError, match="known: none is installed"):
        named_function("entry:length", "config.x", "(x, y)")
