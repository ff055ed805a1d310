"""What the command line's tests share: a tiny model on disk, and commands that must fail."""

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.main import main


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The directory of a tiny chat model; tests that break it copy it first."""
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def fails(capsys):
    """fails(words…) runs the command, which must end with code 2 (or `code`) and one line on
    stderr; returns what it says after the program's name."""

    def run(*words, code=2):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("emergent-alignment: ")
        return said[0].removeprefix("emergent-alignment: ")

    return run
