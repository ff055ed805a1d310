"""What the conscience's tests share: a tiny model and its chat."""

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.data.chat import read_chat
from emergent_alignment.models.model import load


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny chat model, read from a directory."""
    return load(str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture(scope="session")
def chat(model):
    """The chat of `model`."""
    return read_chat(model.tokenizer)
