"""Configs that are named without a path, and launch scripts that a command starts."""

import os
from pathlib import Path

import pytest

from emergent_alignment.cli import bundled
from emergent_alignment.cli.bundled import (
    bundled_configs,
    bundled_folder,
    bundled_sizes,
    summary_of,
)
from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.launch import launch_scripts
from emergent_alignment.cli.main import main
from emergent_alignment.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_name_is_the_file_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for size in ("", ":short"):
        assert read_config([f"--config=quickstart{size}"]) == read_config(
            [f"--config={ROOT / 'configs' / 'quickstart.py'}{size}"]
        )


def test_a_file_of_one_s_own_comes_before_a_bundled_config(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text(
        "from emergent_alignment.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.seed = 7\n    return config\n"
    )
    assert read_config(["--config=quickstart"]).seed == 7


def test_a_name_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(UserError, match="did you mean quickstart.*zero_shot"):
        read_config(["--config=configs/quikstart.py"])


def test_a_wheel_s_folders_come_before_those_beside_it(monkeypatch, tmp_path):
    package = tmp_path / "packages" / "emergent_alignment"
    (package / "configs").mkdir(parents=True)
    (tmp_path / "packages" / "launch").mkdir()
    monkeypatch.setattr(bundled, "THE_PACKAGE", package)
    assert bundled_folder("configs") == package / "configs"
    assert bundled_folder("launch") == tmp_path / "packages" / "launch"


def test_sizes_are_named_without_a_path_where_nothing_else_is_meant(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert bundled_sizes("Qwen3-4B") == str(ROOT / "configs" / "models" / "Qwen3-4B")
    assert bundled_sizes("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
    Path("Qwen3-4B").mkdir()
    assert bundled_sizes("Qwen3-4B") == "Qwen3-4B"


def test_every_config_says_what_it_is(capsys):
    assert main(["config", "--list"]) == 0
    said = capsys.readouterr().out
    for name, path in bundled_configs().items():
        assert f"\n{name}\n  {summary_of(path)[:40]}" in f"\n{said}"


def test_every_script_is_listed_with_what_it_does(capsys):
    assert main(["launch", "--list"]) == 0
    said = capsys.readouterr().out
    assert list(launch_scripts()) == ["gke_xpk", "local_processes", "slurm", "tpu_pod"]
    assert "A run on the nodes of a Slurm job, one process a node.\n" in said
    assert all(str(path) in said for path in launch_scripts().values())


def test_a_script_gets_its_words_as_they_were_written(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    words = ["--devices", "4", "2", "--", "train", "--config", "a", "--workdir=b", "--help"]
    main(["launch", "local_processes", *words])
    ((_, command, environment),) = started
    assert command[1:] == [str(ROOT / "launch" / "local_processes.sh"), *words]
    assert environment["PYTHON"]


def test_an_unknown_script_is_answered_with_those_that_are(capsys):
    assert main(["launch", "tpu"]) == 2
    assert (
        "no such script; known: gke_xpk, local_processes, slurm, tpu_pod" in capsys.readouterr().err
    )
