"""The corners of what setup.py allows: each with an interpreter, an environment of its own and its
constraints, and the tests of what a new JAX or Python would break.

  python tests/matrix/corners.py [oldest | newest]

An interpreter that is not on this machine is said, and left out; the exit code is 1 where a corner
fails, and 2 where none could be had.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TESTS = (
    "tests/test_losses.py", "tests/test_randomness.py", "tests/models/test_attention.py",
    "tests/models/test_lora.py", "tests/models/test_export.py", "tests/generation/test_sampler.py",
    "tests/training/test_step.py", "tests/training/test_checkpoints.py",
    "tests/conscience/test_pairs.py", "tests/applications/test_finetuning.py",
)  # fmt: skip
NEEDED = ("pytest>=8", "pytest-xdist", "hypothesis", "beartype", "tensorstore", "openai")


@dataclass(frozen=True)
class Corner:
    """Of `pythons` the first that is there is taken; NAME.txt beside this file has the constraints
    (what it does not name is what constraints.txt says, or else the newest that is served)."""

    pythons: tuple[str, ...]
    as_in_ci: bool = False


CORNERS = {"oldest": Corner(("3.11",), as_in_ci=True), "newest": Corner(("3.14", "3.13", "3.12"))}


def interpreter(corner: Corner) -> str | None:
    """The first of a corner's Pythons that runs here."""
    for version in corner.pythons:
        found = [shutil.which(f"python{version}")]
        found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)
        for python in filter(None, found):
            ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(ask, capture_output=True, text=True)
            if done.stdout.strip() == version:
                return str(python)
    return None


def tried(name: str, corner: Corner) -> bool | None:
    """Whether the tests pass there; None where it has no interpreter."""
    python = interpreter(corner)
    if python is None:
        print(f"{name}: no Python {' or '.join(corner.pythons)} on this machine; left out")
        return None
    own = ROOT / f".venv-{name}"
    python_here = own / "bin" / "python"
    if not (own / ".installed").exists():
        subprocess.run([python, "-m", "venv", own], check=True)
        limits = own / "constraints.txt"
        limits.write_text("\n".join(constraints(name, corner)))
        install = [python_here, "-m", "pip", "install", "-q", "--no-compile", "-c", limits]
        subprocess.run([*install, "-e", f"{ROOT}[gguf,report,serve]", *NEEDED], check=True)
        (own / ".installed").touch()
    say = "import sys, jax, flax; print(sys.version.split()[0], jax.__version__, flax.__version__)"
    versions = subprocess.check_output([python_here, "-c", say], text=True).split()
    print("{}: Python {}, jax {}, flax {}".format(name, *versions), flush=True)
    variables = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([python_here, "-m", "pytest", *TESTS], cwd=ROOT, env=variables)
    return done.returncode == 0


def constraints(name: str, corner: Corner) -> list[str]:
    """The lines of the corner's own file, and of CI's those that name nothing of it."""
    lines = (HERE / f"{name}.txt").read_text("utf-8").split()
    own = {line.partition("==")[0].lower() for line in lines}
    shared = (ROOT / "constraints.txt").read_text("utf-8").split() if corner.as_in_ci else []
    return lines + [line for line in shared if line.partition("==")[0].lower() not in own]


def main(names: list[str]) -> int:
    """Try the corners of these names, or all."""
    results = [tried(name, CORNERS[name]) for name in names or CORNERS]
    known = [result for result in results if result is not None]
    return 2 if not known else int(not all(known))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
