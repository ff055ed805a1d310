"""Settings as frozen dataclasses: ranges, choices, types, replacing, and reading from dicts."""

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.cli.config_files import as_config_dict, typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.settings import (
    Allowed,
    Section,
    as_dict,
    changed,
    check_settings,
    fields_of,
    finite,
    from_dict,
    sections_of,
    setting,
    share,
    values_of,
)


@dataclass(frozen=True)
class Inner(Section):
    """Within the other."""

    size: int = setting(2, "A size.", at_least=1)
    names: tuple[str, ...] = setting(("a",), "Names.", choices=("a", "b", ""))
    numbers: tuple[int, ...] = setting((), "Numbers.")


@dataclass(frozen=True)
class Outer(Section):
    """Has a section."""

    rate: float = setting(0.5, "A rate.", more_than=0)
    kind: Literal["one", "two"] = setting("one", "A kind.")
    part: float = share(0.5, "A part.")
    bias: float = finite(0.0, "Any.")
    inner: Inner = Inner()

    def check(self) -> None:
        if self.rate > self.inner.size:
            raise UserError("config.rate: more than config.inner.size")


RANGES = [
    ({"at_least": 0}, "0 or more"),
    ({"more_than": 0}, "more than 0"),
    ({"at_most": 1}, "at most 1"),
    ({"more_than": 0, "at_most": 1}, "more than 0 and at most 1"),
    ({"more_than": 0, "less_than": 1}, "more than 0 and under 1"),
    ({"at_least": 0, "at_most": 1}, "in [0, 1]"),
    ({"at_least": 0, "less_than": 0.5}, "in [0, 0.5)"),
    ({"at_least": -1, "words": "0 or more, or {at_least:g}"}, "0 or more, or -1"),
    ({}, ""),
]


@pytest.mark.parametrize(("bounds", "words"), RANGES)
@given(number=st.floats(-2, 2) | st.integers(-2, 2) | st.just(math.nan))
def test_a_range_holds_what_its_words_say(bounds, words, number):
    allowed = Allowed(**bounds)
    assert allowed.range_words() == words
    checks = {
        "at_least": lambda bound: number >= bound,
        "more_than": lambda bound: number > bound,
        "at_most": lambda bound: number <= bound,
        "less_than": lambda bound: number < bound,
    }
    assert allowed.holds(number) == all(checks[k](v) for k, v in bounds.items() if k in checks)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 0.0}, "config.rate must be more than 0, not 0.0"),
        ({"rate": math.nan}, "config.rate must be more than 0, not nan"),
        ({"kind": "three"}, "config.kind: 'three' is unknown; known: one, two"),
        ({"part": 1.5}, "config.part must be a share, 0 to 1, not 1.5"),
        ({"bias": math.inf}, "config.bias must be a finite number, not inf"),
        ({"inner.size": 0}, "config.inner.size must be 1 or more, not 0"),
        ({"inner.names": ()}, 'config.inner.names: choose among a, b, "", not none'),
        ({"inner.names": ("a", "c")}, "config.inner.names: choose among a, b, \"\", not ['c']"),
        ({"rate": 3.0}, "config.rate: more than config.inner.size"),
    ],
)
def test_a_value_that_cannot_be_meant_is_said_with_its_field(changes, said):
    check_settings(Outer())
    with pytest.raises(UserError) as error:
        check_settings(changed(Outer(), changes))
    assert str(error.value) == said


def test_a_value_of_another_type_is_said_where_it_comes_in():
    for changes, said in (
        ({"rate": "fast"}, "rate: expected float, found 'fast'"),
        ({"inner.size": 1.5}, "inner.size: expected int, found 1.5"),
        ({"inner.numbers": (1, "b")}, "inner.numbers: expected a tuple of int, found (1, 'b')"),
        ({"inner": 3}, "inner: expected a section, found 3"),
    ):
        with pytest.raises(UserError) as error:
            changed(Outer(), changes)
        assert str(error.value) == said
    with pytest.raises(UserError, match="rate: expected float, found 'fast'"):
        replace(Outer(), rate="fast")
    made = Inner(names=["a", "b"])
    assert made.names == ("a", "b") and hash(made) == hash(Inner(names=("a", "b")))


def test_a_changed_copy_has_other_values_and_the_original_has_its_own():
    before = Outer()
    after = changed(before, {"inner.size": 5, "rate": 2, "inner.numbers": [1, 2]})
    assert (after.inner.size, after.rate, after.inner.numbers) == (5, 2.0, (1, 2))
    assert isinstance(after.rate, float) and type(after) is Outer
    assert before == Outer() and after.inner.names == before.inner.names
    assert changed(before, {"inner": Inner(7)}).inner.size == 7
    with pytest.raises(FrozenInstanceError):
        after.rate = 1.0
    for name, said in (
        ("inner.sizes", "inner.sizes: there is no such field; did you mean size?"),
        ("innner.size", "innner: there is no such field; did you mean inner?"),
        ("rate.size", "rate.size: there is no such field; rate is a field itself"),
    ):
        with pytest.raises(UserError, match=said):
            changed(before, {name: 1})


def test_dicts_there_and_back_are_the_same_and_lacking_fields_have_their_defaults():
    full = changed(Config(), {"lora.rank": 3, "self_align.reinforcement.policy.clip": 0.3})
    assert from_dict(Config, as_dict(full)) == full
    assert typed(as_config_dict(full)) == full
    assert from_dict(Outer, {"inner": {"size": 3}}) == Outer(inner=Inner(3))


def test_an_unknown_field_of_a_dict_is_one_line_with_the_nearest():
    with pytest.raises(UserError) as error:
        from_dict(Outer, {"inner": {"sise": 3}}, "runs/a/run.json", "Go back")
    assert str(error.value) == (
        "runs/a/run.json: config.inner.sise: there is no such field; did you mean size? Go back"
    )


def test_the_walk_names_every_field_once_with_what_it_may_be_and_an_explanation():
    names = [field.name for field in fields_of(Config)]
    assert names == list(values_of(Config())) and len(names) == len(set(names))
    for field in fields_of(Config):
        assert field.explanation[-1] in ".…" and "\n" not in field.explanation, field.name
    assert {name.rpartition(".")[0] for name in names} <= {"", *sections_of(Config)}
    (size, *_) = fields_of(Inner)
    assert (size.name, size.kind, size.default) == ("size", "int", 2)
    assert (size.allowed, size.explanation) == ("1 or more", "A size.")


def test_all_defaults_can_be_meant_and_config_files_start_from_them():
    check_settings(Config())
    started = default_config()
    assert started.is_locked and typed(started) == Config()
    started.training.steps = 3
    assert default_config().training.steps == 100
    with pytest.raises(AttributeError):
        started.training.step = 3


def test_a_feature_s_config_has_what_every_run_reads_and_its_own():
    for kind in Config.__mro__:
        if kind not in (Section, object):
            assert set(values_of(RunConfig())) <= set(values_of(kind()))


def test_applications_need_no_config_dict():
    text = (
        "import sys, emergent_alignment.config, emergent_alignment.applications.finetuning\n"
        "emergent_alignment.config.Config()\n"
        "sys.exit('ml_collections' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", text], timeout=120).returncode == 0


def numbers():
    """(section, field, a number of its type, whether it is a tuple's item) of every section."""
    for kind in (Config, *sections_of(Config).values()):
        for name, default in vars(kind()).items():
            item = default[0] if isinstance(default, tuple) and default else default
            if type(item) in (int, float):
                yield kind(), name, item, isinstance(default, tuple)


def test_every_number_of_every_section_has_a_lower_and_an_upper_end():
    found = list(numbers())
    assert len(found) > 100
    for section, name, default, is_item in found:
        wrong = [2**31, -(2**31) - 1] if type(default) is int else [math.inf, -math.inf, math.nan]
        for value in (*wrong, 10**5000):
            with pytest.raises(UserError) as refused:
                check_settings(changed(section, {name: (value,) if is_item else value}))
            text = str(refused.value)
            assert name in text and len(text.splitlines()) == 1 and len(text) < 500


def test_an_error_that_quotes_a_long_value_says_its_place_and_its_remedy():
    said = str(UserError(f"rows.jsonl:3: {'x' * 100_000}; remove it"))
    assert said.startswith("rows.jsonl:3: x") and said.endswith("x; remove it") and len(said) < 4000
    assert str(UserError("short")) == "short"


def test_what_is_no_number_of_its_kind_or_no_text_of_a_file_is_refused():
    for name, value in (
        ("training.steps", True),
        ("optimizer.learning_rate", False),
        ("experiment.seeds", (0, True)),
        ("experiment.seeds", (0, -1)),
        ("seed", -1),
        ("optimizer.epsilon", -1.0),
        ("optimizer.epsilon", 0),
        ("model.path", "a\0b"),
        ("data.train", "a\ud800.jsonl"),
        ("endpoint.timeout_seconds", 1e9),
    ):
        with pytest.raises(UserError, match=name.rpartition(".")[2]):
            check_settings(changed(Config(), {name: value}))
