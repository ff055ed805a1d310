"""Log-probs in the API's form, where they are asked for and known."""

import json

import pytest

from emergent_alignment.applications.zero_shot.serving.replies import chat_reply
from emergent_alignment.applications.zero_shot.serving.requests import parse_request
from emergent_alignment.conscience.conscience import Response
from emergent_alignment.conscience.pairs import Reviewed

TOLD = [
    {"token": "Yé", "logprob": -0.5, "bytes": [89, 195, 169], "top_logprobs": []},
    {"token": "s", "logprob": -1.25, "bytes": [115], "top_logprobs": []},
]


def replied(tokens: tuple, **asked) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | asked
    request = parse_request(json.dumps(body).encode(), model="m", max_tokens=9)
    reviewed = Reviewed([], "Yés", 1.0, "approved")
    answer = Response("Yés", reviewed, "Yés", False, True, 1, 2, tokens)
    return chat_reply("1", "m", request, [answer]).body


@pytest.mark.parametrize(
    ("tokens", "asked", "told"),
    [
        ((("Yé", -0.5), ("s", -1.25)), True, {"content": TOLD, "refusal": None}),
        ((("Yé", -0.5), ("s", -1.25)), False, None),
        ((), True, None),
    ],
)
def test_log_probs_stand_beside_the_choice_where_they_are_asked_for(tokens, asked, told):
    (choice,) = json.loads(replied(tokens, logprobs=asked))["choices"]
    assert choice["logprobs"] == told
