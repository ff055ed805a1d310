"""What servers send for one answer, in the many forms that they have for it."""

import json

import pytest

from emergent_alignment.generation.completion import (
    BrokenOff,
    Continuation,
    Unreadable,
    read_completion,
    read_continuation,
    read_stream,
)

END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
THOUGHTFUL = [
    {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Hi"}]},
    {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "output_text", "text": "Hi"},
        ]
    },
    {"content": "Hi", "thinking": "Hm."},
]


def read(message):
    """The completion of one message."""
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return read_completion(json.dumps({"choices": [choice]}).encode())


def chunk(**delta):
    """An event of a stream."""
    return {"choices": [{"index": 0, "delta": delta}]}


def streamed(*documents, first=b""):
    """The completion of a stream, and the pieces that are told of it."""
    told = []
    lines = [first, *(b"data: " + json.dumps(document).encode() for document in documents)]
    return read_stream(lines, told.append), told


@pytest.mark.parametrize("message", THOUGHTFUL)
def test_what_is_thought_among_the_parts_is_no_part_of_the_answer(message):
    for found in (read(message), streamed(chunk(**message), END)[0]):
        assert (found.text, found.reasoning) == ("Hi", "Hm.")


def test_a_refusal_may_be_a_part():
    assert read({"content": [{"type": "refusal", "refusal": "No."}]}).text == "No."


@pytest.mark.parametrize(
    "parts",
    [
        ["Hi"],
        [{"type": 3, "text": "Hi"}],
        [{"type": "image_url"}],
        [{"type": "thinking", "thinking": [["Hi"]]}],
        [None],
    ],
)
def test_parts_that_are_no_text_are_unreadable(parts):
    with pytest.raises(Unreadable, match="no text"):
        read({"content": parts})


def test_a_whole_message_in_a_stream_is_said_once():
    whole = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    for documents in ([whole], [chunk(content="Hi"), whole]):
        found, told = streamed(*documents)
        assert (found.text, told) == ("Hi", ["Hi"])


def test_another_answer_of_a_stream_is_none_of_this_one():
    other = {"choices": [{"index": 1, "delta": {"content": "Other"}}]}
    assert streamed(other, chunk(content="Hi"), END)[1] == ["Hi"]


def test_pieces_are_whole_letters():
    found, told = streamed(chunk(content="a\ud83d"), chunk(content="\ude00b"), END)
    assert (found.text, told) == ("a😀b", ["a", "😀b"])
    found, told = streamed(chunk(content="a\ud83d"), END)
    assert (found.text, told) == ("a�", ["a", "�"])


@pytest.mark.parametrize("first", [b"data:", b": waiting", b"event: x", b"\xef\xbb\xbf: x"])
def test_what_keeps_a_stream_alive_says_nothing(first):
    assert streamed(chunk(content="Hi"), END, first=first)[1] == ["Hi"]
    start = b"\xef\xbb\xbfdata: " + json.dumps(chunk(content="Oh ")).encode()
    assert streamed(chunk(content="hi"), END, first=start)[0].text == "Oh hi"


def continued(**choice):
    """What is written on, of one choice."""
    return read_continuation(json.dumps({"choices": [{"index": 0, **choice}]}).encode())


def test_what_is_written_on_has_its_log_probs_and_ids_where_they_are_told():
    told = {"token_logprobs": [-0.5, -1, 1e-9], "tokens": ["a", "b", "c"]}
    found = continued(text="abc", finish_reason="stop", logprobs=told, token_ids=[5, 0, 2])
    assert found == Continuation("abc", "stop", (-0.5, -1.0, 0.0), (5, 0, 2))
    assert continued(text="a", finish_reason="length") == Continuation("a", "length", ())


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "Hi"}},
        {"text": ["Hi"]},
        {"text": "Hi", "logprobs": {"token_logprobs": [None]}},
        {"text": "Hi", "logprobs": {"token_logprobs": ["-1"]}},
        {"text": "Hi", "logprobs": {"token_logprobs": [1.0]}},
        {"text": "Hi", "token_ids": [-1]},
        {"text": "Hi", "token_ids": [True]},
    ],
)
def test_what_is_no_continuation_is_unreadable(choice):
    with pytest.raises(Unreadable):
        continued(**choice)


FAILED = {"error": {"message": "out of memory"}}


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], **FAILED},
        {"choices": [{"delta": {"content": ""}}], **FAILED},
        {"choices": [{"delta": {"content": ""}, **FAILED}]},
    ],
)
def test_an_error_in_a_stream_is_no_end_of_an_answer(event):
    chunk = {"choices": [{"delta": {"content": "The first half"}}]}
    lines = [f"data: {json.dumps(one)}\n".encode() for one in (chunk, event)]
    with pytest.raises((BrokenOff, Unreadable)):
        read_stream([*lines, b"data: [DONE]\n"], [].append)


@pytest.mark.parametrize("place", ["document", "choice"])
def test_an_error_beside_an_answer_is_no_end_of_it(place):
    choice = {"message": {"role": "assistant", "content": "The first half"}}
    choice |= FAILED if place == "choice" else {}
    document = {"choices": [choice]} | (FAILED if place == "document" else {"error": None})
    with pytest.raises(BrokenOff):
        read_completion(json.dumps(document).encode())


def test_log_probs_of_more_than_one_are_none():
    top = [{"token": token, "logprob": -0.1} for token in ("Yes", "No")]
    token = {"token": "Yes", "logprob": -0.1, "top_logprobs": top}
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": [token]}}
    with pytest.raises(Unreadable, match="log-probs that cannot be read"):
        read_completion(json.dumps({"choices": [choice]}).encode())
