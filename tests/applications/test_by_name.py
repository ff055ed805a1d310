"""Whoever calls an application may call any of them."""

import inspect
import typing

import pytest

from emergent_alignment.applications.by_name import APPLICATIONS, Application, application
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError


def parameters(function) -> list[tuple]:
    hints = typing.get_type_hints(function)
    return [
        (name, parameter.kind, parameter.default, hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    ]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_has_the_signature_of_an_application(name):
    config = default_config()
    config.application = name
    assert parameters(application(config)) == parameters(Application.__call__)
    returned = typing.get_type_hints(application(config))["return"]
    assert returned is typing.get_type_hints(Application.__call__)["return"]


def test_an_unknown_application_is_an_error_that_names_the_known():
    config = default_config()
    config.application = "juggling"
    with pytest.raises(UserError, match="'juggling' is unknown; known: finetuning, adversarial"):
        application(config)
