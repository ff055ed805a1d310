"""What the conscience's tests share: a tiny model and its chat."""

import jax
import numpy as np
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


@pytest.fixture(scope="session")
def last_hidden(model):
    """last_hidden(row): the final hidden state of a row's last token, by one plain causal pass;
    what pads the rows has no say, and lets their program compile once."""
    whole_rows = jax.jit(model.hidden)

    def after(row: list[int]) -> np.ndarray:
        padded = np.zeros((1, -(-len(row) // 256) * 256), np.int32)
        padded[0, : len(row)] = row
        return np.asarray(whole_rows(model.params, padded))[0, len(row) - 1]

    return after
