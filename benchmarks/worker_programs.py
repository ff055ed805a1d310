"""A short run of a tiny model, with whatever version of the package and its tests is on the path:
`worker_programs.py STEP`. Only what all versions have is used: commands, and the tests' toys."""

import subprocess
import sys
from pathlib import Path

from real_runs import train_command
from tiny_chat_model import write_tiny_chat_model

RAW_TEXT = {
    "application": "pretraining",
    "lora.rank": 0,
    "pretraining.corpus": "corpus.txt",
    "pretraining.window_tokens": 32,
    "pretraining.review_share": 0.5,
    "pretraining.auc": 0.0,
    "calibration.num_selecting": 4,
    "calibration.num_reporting": 4,
    "calibration.questions": "('advice',)",
    "calibration.layouts": "('quote',)",
    "calibration.polarities": "('positive',)",
}
CHANGES = {"hybrid": {}, "task": {"conscience.enabled": False}, "raw_text": RAW_TEXT}


def run_command(step: str) -> None:
    write_tiny_chat_model(Path("model"))
    Path("corpus.txt").write_text("Boats go out and boats come in again by night. " * 80, "utf-8")
    short = {"training.steps": 1, "training.accumulation": 2} | CHANGES[step]
    subprocess.run(train_command("model", Path("run"), **short), check=True)


def run_policy_optimisation(algorithm: str) -> None:
    from toy_reward import PROMPTS, share_liked, toy_config, toy_setup

    from emergent_alignment.self_align.reinforcement.policy import optimise_policy

    setup = toy_setup(Path("model"))
    config = toy_config(setup, algorithm, rollouts=1, epochs=1)
    optimise_policy(config, setup, Path("run"), PROMPTS, share_liked)


if __name__ == "__main__":
    step = sys.argv[1]
    run_command(step) if step in CHANGES else run_policy_optimisation(step)
