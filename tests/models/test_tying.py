"""One embedding or two: what the files hold decides where config.json says that they are tied."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import CONFIGS

from emergent_alignment.errors import UserError
from emergent_alignment.models import tying
from emergent_alignment.models.model import export, load

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def tied_with(model_directory):
    """A function that writes a model whose config ties its embedding, changes its tensors (None
    leaves one out), and returns the directory and the embedding as it was."""

    def write(**changes):
        directory, _ = model_directory(CONFIGS["llama_tied"])
        path = directory / "model.safetensors"
        tensors = load_file(path)
        embedding = tensors[EMBEDDING]
        for name, tensor in changes.items():
            tensors[{"embedding": EMBEDDING, "head": HEAD}[name]] = tensor
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, path, metadata={"format": "pt"})
        return directory, embedding

    return write


def assert_matrices(directory, embedding, head):
    """The model's matrices are these, read here and read again from what is written of it."""
    for name in ("once", "twice"):
        model = load(str(directory))
        np.testing.assert_array_equal(model.params["embedding"], embedding)
        found = model.params.get("unembedding")
        if head is None:
            assert found is None and model.config.tie_embeddings
        else:
            np.testing.assert_array_equal(found.T, head)
        directory = export(model, directory.parent / name)
        tied = json.loads((directory / "config.json").read_text())["tie_word_embeddings"]
        assert tied == (head is None) == (HEAD not in load_file(directory / "model.safetensors"))


@pytest.mark.parametrize("rows", [tying._BLOCK_ROWS, 7])
def test_a_head_that_differs_is_not_tied_and_that_is_said(tied_with, capsys, monkeypatch, rows):
    monkeypatch.setattr(tying, "_BLOCK_ROWS", rows)
    other = np.zeros((300, 24), np.float32)
    directory, embedding = tied_with(head=other)
    load(str(directory))
    (line,) = capsys.readouterr().err.splitlines()
    assert "they are not tied" in line and str(directory) in line
    assert_matrices(directory, embedding, other)


def test_one_number_is_a_difference(tied_with, monkeypatch):
    monkeypatch.setattr(tying, "_BLOCK_ROWS", 7)
    directory, embedding = tied_with()
    path = directory / "model.safetensors"
    head = embedding.copy()
    head[-1, -1] += 1
    save_file(load_file(path) | {HEAD: head}, path, metadata={"format": "pt"})
    assert_matrices(directory, embedding, head)


def test_a_head_that_is_the_embedding_is_tied_without_a_word(tied_with, capsys):
    directory, embedding = tied_with()
    path = directory / "model.safetensors"
    save_file(load_file(path) | {HEAD: embedding.copy()}, path, metadata={"format": "pt"})
    assert_matrices(directory, embedding, None)
    assert capsys.readouterr().err == ""


def test_a_head_alone_is_both(tied_with):
    head = np.random.default_rng(1).normal(size=(300, 24)).astype(np.float32)
    directory, _ = tied_with(embedding=None, head=head)
    assert_matrices(directory, head, None)


@pytest.mark.parametrize("head", [np.zeros((299, 24)), np.zeros((24, 300)), np.zeros(24)])
def test_a_head_of_another_shape_is_named(tied_with, head):
    directory, _ = tied_with(head=head.astype(np.float32))
    with pytest.raises(UserError, match="lm_head.weight has shape"):
        load(str(directory))


def test_no_tensor_of_either_is_named(tied_with):
    directory, _ = tied_with(embedding=None)
    with pytest.raises(UserError, match="embed_tokens.weight is missing"):
        load(str(directory))


def test_an_untied_model_needs_its_head(tied_with, edit_json):
    directory, _ = tied_with()
    edit_json(directory / "config.json", tie_word_embeddings=False)
    with pytest.raises(UserError, match="lm_head.weight is missing.*tie_word_embeddings"):
        load(str(directory))
