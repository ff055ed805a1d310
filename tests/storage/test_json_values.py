"""What goes into JSON comes out of it, and what comes out of others' JSON is taken as it is."""

import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.storage.json_values import (
    MOST_NESTED,
    UnreadableJson,
    as_list,
    as_object,
    digest,
    finite_numbers,
    finite_or_none,
    is_number,
    parse_json,
    plain,
    without_none,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.floats() | st.floats(width=32).map(np.float32) | st.integers(-5, 5))
def test_a_number_is_written_as_a_number_or_as_null(number):
    written = json.loads(json.dumps({"number": finite_or_none(number)}, allow_nan=False))["number"]
    assert written == (number if math.isfinite(number) else None)
    assert not isinstance(number, int) or isinstance(written, int), "1 is not written as 1.0"


@given(VALUES)
def test_a_plain_value_is_what_json_gives_back(value):
    assert plain(value) == value and plain({"a": (1, 2)}) == {"a": [1, 2]}
    assert digest(value) == hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@given(VALUES)
def test_any_value_can_be_read_as_anything(value):
    assert as_object(value) == (value if isinstance(value, dict) else {})
    assert as_list(value) == (value if isinstance(value, list) else [])
    assert all(math.isfinite(number) for number in finite_numbers(value))
    assert not (is_number(value) and isinstance(value, bool))


def test_only_fields_with_a_value_are_kept():
    assert without_none({"a": 0, "b": None, "c": ""}) == {"a": 0, "c": ""}
    assert not is_number(float("nan")) and not is_number(True) and is_number(3)


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_as_it_was(value, as_bytes):
    text = json.dumps(value)
    assert parse_json(text.encode() if as_bytes else text) == json.loads(text)
    assert parse_json("\ufeff" + text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value, column 1"),
        ('{"a": 1}\n{', "Extra data, line 2, column 1"),
        ("[" * 200_000, "nested more than"),
        ('{"a":' * 990 + "1" + "}" * 990, "nested more than"),
        ("[" * (MOST_NESTED + 2) + "]" * (MOST_NESTED + 2), "nested more than"),
        ("9" * 5000, "thousands of digits"),
        ('{"a": [-' + "9" * 5000 + "]}", "thousands of digits"),
        ('{"a": "\\ud83d"}', "half a letter"),
        ('{"\\uDE00": 1}', "half a letter"),
        ('[{"a": 1, "b": 2, "a": 3}]', "the field 'a' stands twice"),
        (b'{"a": "\xe9"}', "byte 7 is not UTF-8"),
        (b"\xef\xbb\xbf", "Expecting value"),
    ],
)
def test_what_nobody_means_is_refused_in_one_line(text, said):
    with pytest.raises(UnreadableJson) as refused:
        parse_json(text)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_numbers_that_are_none_are_read_unless_finite_ones_are_asked_for():
    for text in ("NaN", "[Infinity]", '{"a": -Infinity}', "1e999"):
        parse_json(text)
        with pytest.raises(UnreadableJson, match="no finite number"):
            parse_json(text, finite=True)
    assert parse_json('["\\ud83d\\ude00", "\\\\ud83d"]') == ["😀", "\\ud83d"]
