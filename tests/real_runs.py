"""Short training runs on a tiny chat model, as real processes."""

import subprocess
import sys
import time
from pathlib import Path

STEPS = 8


def train_command(model_directory, workdir, **changes) -> list[str]:
    settings = {
        "model.path": model_directory,
        "data.limit": 12,
        "data.buckets": 1,
        "data.max_prompt_tokens": 48,
        "data.max_response_tokens": 48,
        "conscience.gate": "relative",
        "conscience.chain": "('fresh',)",
        "conscience.keep_truncated": True,
        "conscience.batch_size": 4,
        "conscience.max_review_tokens": 160,
        "sampling.max_new_tokens": 8,
        "training.steps": STEPS,
        "training.batch_size": 4,
        "training.checkpoint_every": 2,
        "optimizer.learning_rate": 0.01,
    } | changes
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return [
        sys.executable, "-m", "emergent_alignment", "train", "--workdir", str(workdir), *flags
    ]  # fmt: skip


def finished(command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    """Until `step` is in metrics.jsonl."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        path = workdir / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[1]}")
