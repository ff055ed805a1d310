"""A package that is missing or too old is one line before anything is imported or run."""

import importlib.metadata

import pytest

from emergent_alignment.cli.main import main
from emergent_alignment.cli.requirements import check_requirements
from emergent_alignment.errors import UserError


def test_what_this_package_needs_is_installed_here():
    check_requirements()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("jax>=99", r"needs jax>=99, and jax [\d.]+ is installed; pip install 'jax>=99'"),
        ("no-such-package>=1", "needs no-such-package>=1, and it is missing"),
        ("numpy<1; python_version >= '3'", "needs numpy<1, and numpy"),
    ],
)
def test_another_version_is_named_with_the_remedy(line, said):
    with pytest.raises(UserError, match=said):
        check_requirements(["pip", line])


def test_extras_and_other_platforms_are_left_out():
    check_requirements(["jax>=99; extra == 'tpu'", "jax>=99; sys_platform == 'beos'"])


def test_a_command_says_it_before_it_imports_anything(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["jax>=99"])
    with pytest.raises(SystemExit) as ended:
        main(["train", "--workdir", "run"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        "emergent-alignment: emergent-alignment needs jax>=99"
    )
