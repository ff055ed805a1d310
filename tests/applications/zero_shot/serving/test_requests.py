"""Every field of a request is honoured or refused with its name; none is ignored."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from emergent_alignment.applications.zero_shot.serving.requests import RequestError, parse_request

USER = {"role": "user", "content": "Hi"}


def parsed(*, body=None, **fields):
    asked = {"model": "m", "messages": [USER]} | fields
    body = json.dumps(asked).encode() if body is None else body
    return parse_request(body, model="m", max_tokens=100)


def refused(**fields) -> RequestError:
    with pytest.raises(RequestError) as raised:
        parsed(**fields)
    assert 400 <= raised.value.status < 500 and "\n" not in str(raised.value)
    return raised.value


def test_what_is_absent_or_null_has_the_api_s_defaults():
    nothing = dict.fromkeys(("n", "temperature", "top_p", "stop", "seed", "stream", "tools"))
    for found in (parsed(), parsed(**nothing)):
        assert (found.num_choices, found.max_tokens, found.stop, found.seed) == (1, 100, (), None)
        assert (found.temperature, found.top_p, found.stream) == (1.0, 1.0, False)


def test_what_is_asked_for_arrives():
    found = parsed(
        n=2, max_completion_tokens=7, temperature=0, top_p=0.5, stop="x", seed=-1, stream=True,
        stream_options={"include_usage": True}, user="u",
    )  # fmt: skip
    assert (found.num_choices, found.max_tokens, found.temperature, found.top_p) == (2, 7, 0.0, 0.5)
    assert (found.stop, found.seed, found.stream, found.user) == (("x",), -1, True, "u")
    assert found.include_usage and parsed(stop=["a", "b"]).stop == ("a", "b")


def test_turns_of_all_roles_and_parts_of_text_are_read():
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": []},
        USER,
    ]
    assert parsed(messages=talk).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
        USER,
    ]


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 0), ("n", 9), ("n", True), ("n", 1.0), ("n", "1"),
        ("max_tokens", 0), ("max_tokens", 101), ("max_tokens", 1e3), ("temperature", -0.1),
        ("temperature", 2.1), ("temperature", "1"), ("temperature", True), ("top_p", 0),
        ("top_p", 1.1), ("top_p", 10**400), ("temperature", -(10**400)),
        ("seed", 0.5), ("seed", 2**63), ("stream", 1), ("stream", "true"),
        ("stop", 1), ("stop", [""]), ("stop", ["a"] * 5), ("stop", ["a" * 257]), ("stop", {}),
        ("user", 1), ("stream_options", {"other": 1}), ("stream_options", []),
        ("logprobs", 1), ("top_logprobs", 3), ("presence_penalty", 0.5), ("tools", [{}]),
        ("tool_choice", "auto"), ("response_format", {"type": "json_object"}),
        ("logit_bias", {"1": 5}), ("reasoning_effort", "high"), ("store", True), ("what", 1),
        ("modalities", ["audio"]), ("best_of", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_with_its_name(param, value):
    error = refused(**{param: value})
    assert error.param == param or error.param.startswith(param) and param in str(error)


@pytest.mark.parametrize(
    "value", [{"logprobs": False}, {"presence_penalty": 0}, {"tools": []}, {"store": False},
              {"response_format": {"type": "text"}}, {"parallel_tool_calls": True}],
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(value):
    assert parsed(**value) == parsed()


@pytest.mark.parametrize(
    "messages",
    [
        None, [], {}, "Hi", [1], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}], [USER | {"name": "me"}], [USER | {"content": 1}],
        [USER | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [USER | {"content": ["x"]}], [USER, {"role": "assistant", "content": "x"}],
        [{"role": "assistant", "content": None, "tool_calls": [{}]}, USER],
        [USER | {"content": "\ud83d"}],
    ],
)  # fmt: skip
def test_messages_that_cannot_be_reviewed_are_refused(messages):
    assert refused(messages=messages).param.startswith("messages")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"\xff{}", "not UTF-8 (byte 0)"), (b"[]", "object"),
        (b'"x"', "object"), (b'{"n": NaN}', "nobody means"), (b"[" * 100_000, "nobody means"),
        (b'{"n": ' + b"9" * 9999 + b"}", "nobody means"), (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(body, part):
    assert part in str(refused(body=body))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model": "m", "temperature": 0, "temperature": 1}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
    ],
)
def test_a_field_that_is_said_twice_is_refused(body, param):
    assert refused(body=body).param == param


def test_another_model_is_not_found_and_none_must_be_named():
    assert refused(model="other").status == 404
    assert "'m'" in str(refused(model=""))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from("model messages n max_tokens temperature stop seed stream user x".split())


@settings(max_examples=300)
@given(st.dictionaries(FIELDS, JSON, max_size=5), st.booleans())
def test_whatever_is_sent_is_a_request_or_refused(fields, whole):
    asked = ({"model": "m", "messages": [USER]} if whole else {}) | fields
    try:
        parse_request(json.dumps(asked).encode(), model="m", max_tokens=9)
    except RequestError as error:
        assert 400 <= error.status < 500


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_whatever_bytes_are_sent_are_refused(body):
    with pytest.raises(RequestError):
        parse_request(body, model="m", max_tokens=9)
