"""What goes into JSON comes out of it, and what comes out of others' JSON is taken as it is."""

import hashlib
import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.storage.json_values import (
    as_list,
    as_object,
    digest,
    finite_numbers,
    finite_or_none,
    is_number,
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
