"""Whoever reviews is called alike, and answers alike: no one is registered anywhere."""

import inspect

import pytest

from emergent_alignment.conscience.chance import ChanceHearing, ChanceReviewer
from emergent_alignment.conscience.endpoint_hearing import EndpointHearing, EndpointReviewer
from emergent_alignment.conscience.frozen_hearing import FrozenHearing, FrozenReviewer
from emergent_alignment.conscience.hearing import Hearing, Reviewer
from emergent_alignment.conscience.judge import JudgedHearing, JudgeReviewer


def parameters(kind: type, method: str) -> list[str]:
    return list(inspect.signature(getattr(kind, method)).parameters)


@pytest.mark.parametrize(
    ("reviewer", "hearing"),
    [
        (FrozenReviewer, FrozenHearing),
        (ChanceReviewer, ChanceHearing),
        (EndpointReviewer, EndpointHearing),
        (JudgeReviewer, JudgedHearing),
    ],
)
def test_every_reviewer_is_called_alike(reviewer, hearing):
    assert parameters(reviewer, "hear") == parameters(Reviewer, "hear")
    assert hasattr(reviewer, "batch_size")
    methods = [name for name in vars(Hearing) if not name.startswith("_")]
    assert len(methods) == 7
    for name in methods:
        assert parameters(hearing, name) == parameters(Hearing, name)
