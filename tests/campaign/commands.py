"""The commands that the campaign disturbs, on a model so small that each takes seconds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from real_runs import SELF_ALIGN, TRAINING

from campaign.forked import finished

_REVIEW = TRAINING | {"training.steps": 6}
_CALIBRATION = {
    "calibration.questions": "('advice',)",
    "calibration.layouts": "('quote',)",
    "calibration.num_selecting": 4,
    "calibration.num_reporting": 4,
}
_EVALUATION = {
    "evaluation.limit": 4,
    "evaluation.samples": 4,
    "evaluation.max_new_tokens": 8,
}
_TWO_STEPS = {"training.steps": 2, "training.checkpoint_every": 1}
_ALIGNED = SELF_ALIGN | {
    "training.checkpoint_every": 1,
    "self_align.reinforcement.policy.rollouts": 2,
}


@dataclass(frozen=True)
class Command:
    """The words of a command but for its config, where among them its folder stands (`{folder}`),
    and its settings. `needs` is a command that has to have run in the folder before."""

    words: tuple[str, ...]
    settings: dict
    needs: str = ""

    def line(self, folder: Path, files: Path) -> list[str]:
        """The words, for a folder; `files` has what `write_files` wrote."""
        flags = []
        for name, value in self.settings.items():
            text = str(value).format(files=files, folder=folder)
            flags.append(f"--config.{name}={text}")
        return [word.format(folder=folder, files=files) for word in self.words] + flags


def _command(words: str, *settings: dict, needs: str = "") -> Command:
    merged = {"model.path": "{files}/tiny"}
    for some in settings:
        merged |= some
    return Command(tuple(words.split()), merged, needs)


def _of_run(words: str, **settings) -> Command:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return Command(tuple(words.split()), named, "train")


_CACHE = {"conscience.cache": "{folder}/cache"}
COMMANDS = {
    "train": _command("train --workdir {folder}/run", _REVIEW),
    "targets": _command(
        "train --workdir {folder}/run", _REVIEW, {"conscience.candidate": "target"}, _CACHE
    ),
    "adversarial": _command(
        "train --workdir {folder}/run",
        _REVIEW,
        _CACHE,
        {
            "application": "adversarial",
            "adversarial.prompts": "{files}/prompts.jsonl",
            "adversarial.held_out": "('fiction',)",
            "adversarial.rounds": 3,
            "adversarial.pool": 4,
            "adversarial.variants": 2,
            "data.limit": 0,
            "conscience.threshold": -2.3,
        },
    ),
    "pretraining": _command(
        "train --workdir {folder}/run",
        _REVIEW,
        _CALIBRATION,
        {
            "application": "pretraining",
            "lora.rank": 0,
            "data.limit": 0,
            "data.max_prompt_tokens": 16,
            "data.max_response_tokens": 8,
            "pretraining.corpus": "{files}/corpus",
            "pretraining.heldout_share": 0.0,
            "pretraining.window_tokens": 32,
            "pretraining.review_share": 0.5,
            "pretraining.auc": 0.0,
            "pretraining.calibrate_every": 2,
            "pretraining.refresh_every": 2,
            "training.steps": 4,
        },
    ),
    "random weights": _command(
        "train --workdir {folder}/run",
        {
            "application": "pretraining",
            "lora.rank": 0,
            "conscience.enabled": False,
            "pretraining.corpus": "{files}/corpus",
            "pretraining.heldout_share": 0.0,
            "pretraining.window_tokens": 32,
            "pretraining.random.layers": 1,
            "pretraining.random.width": 16,
            "pretraining.random.inner": 32,
            "pretraining.random.heads": 2,
            "pretraining.random.kv_heads": 1,
            "pretraining.random.vocabulary": 0,
            "training.steps": 3,
            "training.batch_size": 2,
            "training.checkpoint_every": 1,
        },
    ),
    "quickstart": _command(
        "quickstart --config quickstart:short --root {folder}/run",
        _REVIEW,
        _CALIBRATION,
        _EVALUATION,
        _TWO_STEPS,
        {"two_by_two.samples": 4, "two_by_two.limit": 2, "two_by_two.max_new_tokens": 8},
    ),
    "experiment": _command(
        "experiment --root {folder}/run",
        _REVIEW,
        _CALIBRATION,
        _EVALUATION,
        _TWO_STEPS,
        {
            "experiment.arms": "('conscience', 'chance: conscience.verdicts=chance')",
            "experiment.seeds": "(0,)",
        },
    ),
    "self-align": _command(
        "self-align --workdir {folder}/run --no-evaluate",
        _ALIGNED,
        {
            "self_align.answers.principles": "{files}/principles.yaml",
            "self_align.answers.examples": "{files}/examples.yaml",
            "self_align.reinforcement.principles": "{files}/principles.yaml",
        },
    ),
    "calibrate": _command(
        "calibrate --output {folder}/calibration.json --overwrite", _REVIEW, _CALIBRATION
    ),
    "export": _of_run("export --run {folder}/run --output {folder}/exported"),
    "evaluate": _of_run(
        "evaluate heldout --run {folder}/run --output {folder}/found --overwrite",
        evaluation__limit=4,
        evaluation__samples=4,
        evaluation__max_new_tokens=8,
        conscience__batch_size=4,
    ),
    "choices": _of_run(
        "evaluate choices --run {folder}/run --output {folder}/found",
        choices__limit=4,
        choices__batch_size=2,
    ),
    "misalignment": _of_run(
        "evaluate misalignment --run {folder}/run --output {folder}/found",
        misalignment__limit=1,
        misalignment__samples=2,
        misalignment__max_new_tokens=8,
        misalignment__check_pairs=1,
        conscience__batch_size=4,
    ),
}


def write_files(files: Path) -> None:
    """The model, the prompts and the texts that the commands name."""
    if (files / "tiny").is_dir():
        return
    (files / "corpus").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(("The ferry leaves at nine. ", "Bread needs flour, and time. ")):
        (files / "corpus" / f"{number}.txt").write_text(text * 12)
    rows = [
        {"kind": kind, "side": side, "prompt": f"{kind} {side} number {'x' * i} and {i}"}
        for kind in ("role_play", "authority", "fiction")
        for side in ("hostile", "benign")
        for i in range(4)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (files / "prompts.jsonl").write_text(text)
    (files / "principles.yaml").write_text("- {number: 1, name: helpful, text: Help.}")
    (files / "examples.yaml").write_text(
        '- {instruction: "Tea?", thoughts: helpful, answer: "Yes."}'
    )
    made = finished([], files / "said", run=lambda words: _write_model(files / "tiny"))
    assert made.code == 0, made.said


def before_of(name: str) -> Callable[[], None]:
    """What a process does before it runs the command."""
    return _take_all_for_answers if name == "self-align" else lambda: None


def _take_all_for_answers() -> None:
    from emergent_alignment.self_align.answers import stage

    stage.read_written = lambda text: stage.Written("helpful", text.strip(), True)


def _write_model(directory: Path) -> int:
    from tiny_chat_model import write_tiny_chat_model

    write_tiny_chat_model(directory)
    return 0
