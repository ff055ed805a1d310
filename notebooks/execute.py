"""Run every notebook from a fresh kernel; the first cell that fails ends it with its error. What
they compile is what tests/slow has compiled (PYTHONPATH=tests, as `make notebooks` says)."""

import sys
import time
from pathlib import Path

import compilation
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


def main() -> int:
    compilation.compile_quickly()
    here = Path(__file__).parent
    for path in sorted(here.glob("*.ipynb")):
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3")
        try:
            client.execute(cwd=str(here))
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
