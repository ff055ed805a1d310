"""Start a run on several hosts, by the scripts that come with the package.

NAME is a script of --list, without its suffix; what stands behind it goes to the script as it is.
`emergent-alignment launch NAME --help` explains one, and `--dry-run` prints its commands and runs
none. They need bash 4.4 or newer.

examples:
  emergent-alignment launch --list
  emergent-alignment launch tpu_pod --help
  emergent-alignment launch local_processes 2 -- train --config smollm2_135m --workdir runs/two
"""

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.bundled import bundled_folder
from emergent_alignment.errors import UserError

STARTED_BY_OTHERS = ("common", "tpu_worker")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the script; what stands behind it is its own."""
    parser.add_argument("--list", action="store_true", help="print the scripts and where they are")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a script")


def run(arguments: Namespace, rest: list[str]) -> None:
    """List the scripts, or become one of them."""
    scripts = launch_scripts()
    if arguments.list or arguments.name is None:
        for name, path in scripts.items():
            print(f"{name:<16} {_first_comment(path)}\n{'':<16} {path}")
        return
    name = Path(arguments.name).stem
    if name not in scripts:
        raise UserError(f"launch: {arguments.name}: no such script; known: {', '.join(scripts)}")
    bash = shutil.which("bash")
    if bash is None:
        raise UserError("launch: the scripts need bash, which is not on PATH; install bash 4.4")
    sys.stdout.flush()
    environment = {"PYTHON": sys.executable, **os.environ}
    os.execve(bash, [bash, str(scripts[name]), *rest], environment)


def launch_scripts() -> dict[str, Path]:
    """{name: file} of the scripts that a person starts."""
    scripts = sorted(bundled_folder("launch").glob("*.s*"))
    return {path.stem: path for path in scripts if path.stem not in STARTED_BY_OTHERS}


def _first_comment(script: Path) -> str:
    """What the script says that it does."""
    lines = script.read_text("utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))
