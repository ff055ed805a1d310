"""A value has its shape, or what is wrong is said with its field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import (
    FLAG,
    Both,
    IntervalShape,
    Mapped,
    Number,
    Optional,
    Text,
    misfit,
)

SHAPE = {
    "name": Text(("a", "b")),
    "steps": Number(0, 10, whole=True),
    "share": Optional(IntervalShape()),
    "rows": [{"score": Optional(Number()), "ended": FLAG}],
    "counts": Both({"made": Number(0)}, Mapped(Number(0, whole=True))),
}
GOOD = {
    "name": "a",
    "steps": 3,
    "share": [0.5, 0.25, 0.75],
    "rows": [{"score": None, "ended": True}, {"score": 1.5, "ended": False}],
    "counts": {"made": 3, "more": 4},
}


def test_what_was_meant_fits_with_more_fields_than_are_read():
    assert misfit(GOOD, SHAPE) == ""
    assert misfit(GOOD | {"unknown": [1]}, SHAPE) == ""
    assert misfit({name: value for name, value in GOOD.items() if name != "share"}, SHAPE) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "c"}, "name must be one of 'a', 'b', not 'c'"),
        ({"steps": True}, "steps must be a whole number from 0 to 10, not True"),
        ({"steps": 2.0}, "steps must be a whole number from 0 to 10, not 2.0"),
        ({"steps": float("nan")}, "steps must be"),
        ({"steps": 11}, "steps must be"),
        ({"share": [0.5, 0.6, 0.7]}, "share must be [value, low, high] from 0 to 1"),
        ({"share": {"value": 1}}, "share must be"),
        ({"rows": {}}, "rows must be a list, not {}"),
        ({"rows": [{"score": "1", "ended": True}]}, "rows[0].score must be a finite number"),
        ({"rows": [{"score": 1.0}]}, "rows[0].ended is missing"),
        ({"rows": [{"score": float("inf"), "ended": True}]}, "rows[0].score must be"),
        ({"counts": {}}, "counts.made is missing"),
        ({"counts": {"made": 1, "more": -1}}, "counts.more must be"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    assert misfit(GOOD | change, SHAPE).startswith(said)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_at_all_gets_one_short_line(value):
    said = misfit(value, SHAPE)
    assert said and "\n" not in said and len(said) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"steps": ' + "9" * 5000 + "}", "cannot be read"),
        ("[]", "it must be an object, not []"),
        (json.dumps(GOOD | {"steps": -1}), "steps must be a whole number from 0 to 10, not -1"),
    ],
)
def test_a_file_that_is_none_of_ours_is_one_line(tmp_path, text, said):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_json_file(path, SHAPE, "make it again")
    assert str(error.value).startswith(f"{path}: {said}")
    assert str(error.value).endswith("; make it again") and "\n" not in str(error.value)
