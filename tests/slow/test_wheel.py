"""The wheel, as a user has it: built from the source distribution, installed where there is no
checkout, and used in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from tiny_chat_model import write_tiny_chat_model

ROOT = Path(__file__).parents[2]
LEAST = ("conscience.enabled=False", "training.steps=1", "data.limit=4")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source distribution, which holds what it needs."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "-o", folder, ROOT], check=True, timeout=600)
    (source,), (built,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "constraints.txt",
        "tests/conftest.py",
        "docs/design.md",
        "configs/experiment.py",
    } <= held
    return built


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """command(*words): `emergent-alignment` in a folder with nothing of the checkout in sight, by
    an environment that has the wheel, and sees the packages of the one that runs the tests."""
    place = tmp_path_factory.mktemp("elsewhere")
    environment, folder = place / "environment", place / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    install = ["pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run([sys.executable, "-m", *install], check=True, env=variables, timeout=600)
    # A line with a folder, and no more: pip's link to the checkout, in that folder, is not read.
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.check_output(ask, text=True).strip())
    (packages / "main.pth").write_text("\n".join(package_folders()))

    def run(*words, code: int = 0) -> str:
        done = subprocess.run(
            [environment / "bin" / "emergent-alignment", *words],
            cwd=folder, env=variables, capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run.folder, run.package = folder, packages / "emergent_alignment"
    return run


def package_folders() -> list[str]:
    """The folders of packages that this process sees."""
    own = sysconfig.get_path("purelib")
    return [own, *(path for path in sys.path if path.endswith("site-packages") and path != own)]


def test_configs_and_scripts_come_with_it(command):
    configs, scripts = command("config", "--list"), command("launch", "--list")
    assert {f"{command.package}/configs", f"{command.package}/launch"} <= {
        str(Path(line.split()[-1]).parent) if "launch" in line else line.split()[-1]
        for line in [*configs.splitlines(), *scripts.splitlines()]
    }
    assert "did you mean quickstart" in command("quickstart", "--config=quikstart", code=2)


def test_a_launch_script_packs_what_a_worker_installs_by(command, tmp_path):
    said = command(
        "launch", "tpu_pod", "install", "--dry-run", "--project", "p", "--zone", "z",
        "--name", "first", "--", "--config", "quickstart",
    )  # fmt: skip
    pack = next(line for line in said.splitlines() if line.startswith("tar "))
    words = pack.split()
    words[2] = str(tmp_path / "code.tgz")
    subprocess.run(words, check=True)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    shutil.unpack_archive(words[2], unpacked)
    for name in ("setup.py", "configs/quickstart.py", "launch/tpu_worker.sh", "constraints.txt"):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_bundled_config_trains_in_an_empty_folder_and_is_reported(command, tmp_path):
    """With as little of it as there can be: a whole quickstart takes minutes."""
    model = write_tiny_chat_model(tmp_path / "tiny")
    changes = [f"--config.{change}" for change in [f"model.path={model}", *LEAST]]
    command("train", "--config=smollm2_135m", "--workdir=run/plain", *changes)
    assert "report: " in command("report", "run")
    assert (command.folder / "run" / "report.html").is_file()
