"""Whoever calls an application may call any of them."""

import inspect
import typing

import pytest

from emergent_alignment.applications.by_name import APPLICATIONS, Application, application
from emergent_alignment.errors import UserError
from emergent_alignment.runs.config import RunConfig


def parameters(function) -> dict[str, tuple]:
    hints = typing.get_type_hints(function)
    return {
        name: (parameter.kind, parameter.default, hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_the_signature_of_an_application(name):
    """… but for what it reads of the config."""
    train = application(RunConfig(application=name))
    mine, anyones = parameters(train), parameters(Application.__call__)
    kind, default, config = mine.pop("config")
    assert (kind, default) == anyones["config"][:2]
    assert issubclass(config, anyones.pop("config")[-1])
    assert list(mine.items()) == list(anyones.items())
    hints, anyones = map(typing.get_type_hints, (train, Application.__call__))
    assert hints["return"] is anyones["return"]


def test_an_unknown_application_is_an_error_that_names_the_known():
    with pytest.raises(UserError, match="'juggling' is unknown; known: finetuning, adversarial"):
        application(RunConfig(application="juggling"))
