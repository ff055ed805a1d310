"""Are the training steps of two checkouts the same programs? `same_programs.py BEFORE AFTER`

Each checkout compiles, with its own code, the steps of short runs of a tiny model: hybrid (policy
candidates), task alone, raw text with reviewed continuations, PPO and GRPO; XLA writes down each
step as it was traced and as it was optimised for the CPU. Two programs are the same where their
graphs are (program_digest.py). Exits with 1 where the traced graphs differ.

    git worktree add ../before HEAD~5
    python benchmarks/same_programs.py ../before .
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from program_digest import program_digest

WORKER = Path(__file__).with_name("worker_programs.py")
STEPS = ("hybrid", "task", "raw_text", "ppo", "grpo")
FORMS = {"traced": "before_optimizations.txt", "optimised": "cpu_after_optimizations.txt"}


def programs(checkout: Path, step: str, folder: Path) -> dict[str, Counter]:
    """By form, how often which program was compiled in a short run of a checkout."""
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*train_step.*"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        "PYTHONPATH": f"{checkout}:{checkout / 'tests'}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, str(WORKER), step]
        ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"{checkout}: {step}: {ended.stderr[-1000:]}")
    dumped = {form: sorted(folder.glob(f"*{end}")) for form, end in FORMS.items()}
    if not all(dumped.values()):
        raise SystemExit(f"{checkout}: XLA wrote down no training step of {step}")
    return {
        form: Counter(program_digest(path.read_text("utf-8")) for path in paths)
        for form, paths in dumped.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="a checkout of this repository")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    arguments = parser.parse_args()
    same = True
    for step in arguments.steps:
        with tempfile.TemporaryDirectory() as folder:
            sides = [
                programs(checkout.resolve(), step, Path(folder) / str(place))
                for place, checkout in enumerate((arguments.before, arguments.after))
            ]
        for form in FORMS:
            before, after = (side[form] for side in sides)
            said = "the same" if before == after else "DIFFERENT"
            print(f"{step:9} {form:10} {before.total()} and {after.total()} programs: {said}")
        same &= sides[0]["traced"] == sides[1]["traced"]
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
