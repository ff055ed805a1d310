"""Memory of a real process, on the real model."""

import json
import sys

from compilation import as_users_do
from real_runs import finished


def test_peak_memory_of_the_quickstart_s_conscience_step_is_under_five_gigabytes(tmp_path):
    """A step with a round of the quickstart's own shapes, on the real model, in a process of its
    own that compiles as users do."""
    script = """
import resource, sys
from pathlib import Path
from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.configuration import read_config
short = ["--config.training.steps=1"]
short += [f"--config.conscience.{pace}=1" for pace in ("every", "replay")]
config = read_config(["--config=configs/quickstart.py", *short])
finetune(config, Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = finished([sys.executable, "-c", script, str(tmp_path / "run")], env=as_users_do())
    assert done.returncode == 0, done.stderr
    kilobytes = json.loads(done.stdout.split()[-1])
    assert kilobytes < 5e6, f"{kilobytes / 1e6:.2f} GB"
