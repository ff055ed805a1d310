"""Short training runs on a tiny chat model, as real processes."""

import subprocess
import sys
import time
from pathlib import Path

STEPS = 8
# A run that reviews and corrects what a tiny model writes.
TRAINING = {
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
}
# All four stages of SELF-ALIGN, each as short as can be.
SELF_ALIGN = {
    "data.bucket_tokens": 128,
    "data.max_response_tokens": 16,
    "data.buckets": 1,
    "conscience.batch_size": 4,
    "conscience.verdicts": "chance",
    "conscience.chain": "('fresh',)",
    "conscience.keep_truncated": True,
    "sampling.max_new_tokens": 8,
    "self_align.instructions.wanted": 4,
    "self_align.instructions.kind_limit": 1,
    "self_align.instructions.topics_per_kind": 1,
    "self_align.instructions.topic_rounds": 1,
    "self_align.instructions.prompts_per_round": 4,
    "self_align.instructions.max_new_tokens": 32,
    "self_align.instructions.max_topic_tokens": 16,
    "self_align.instructions.fewest_words": 1,
    "self_align.instructions.include_seeds": False,
    "self_align.answers.batch_size": 2,
    "self_align.answers.max_new_tokens": 12,
    "self_align.answers.min_words": 1,
    "self_align.answers.require_end": False,
    "self_align.answers.review": True,
    "self_align.engraving.steps": 2,
    "self_align.engraving.batch_size": 2,
    "self_align.reinforcement.preferences.limit": 4,
    "self_align.reinforcement.preferences.principles": 1,
    "self_align.reinforcement.preferences.orders": "average",
    "self_align.reinforcement.preferences.max_new_tokens": 8,
    "self_align.reinforcement.preferences.batch_size": 2,
    "self_align.reinforcement.reward_model.backbone": "frozen",
    "self_align.reinforcement.reward_model.batch_size": 2,
    "self_align.reinforcement.reward_model.held_out_share": 0.5,
    "self_align.reinforcement.policy.rollouts": 1,
    "self_align.reinforcement.policy.prompts_per_rollout": 2,
    "self_align.reinforcement.policy.minibatches": 1,
    "self_align.reinforcement.policy.max_new_tokens": 8,
}


def train_command(model_directory, workdir, **changes) -> list[str]:
    settings = {"model.path": model_directory} | TRAINING | changes
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return [
        sys.executable, "-m", "emergent_alignment", "train", "--workdir", str(workdir), *flags
    ]  # fmt: skip


def finished(command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, **options)


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    """Until `step` is in metrics.jsonl."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline and process.poll() is None:
        path = workdir / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[1]}")
