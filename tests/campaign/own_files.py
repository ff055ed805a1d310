"""One of every file that this package writes and a later start reads, and what reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emergent_alignment.applications.adversarial import pool
from emergent_alignment.applications.pretraining import windows
from emergent_alignment.config import Config
from emergent_alignment.conscience.calibration import read_calibration
from emergent_alignment.conscience.journal import Journal, check_journal, read_journal
from emergent_alignment.evaluation.answer_records import ANSWER_RECORD, ANSWERS, place_shape
from emergent_alignment.evaluation.misalignment.comparison import read_result
from emergent_alignment.evaluation.misalignment.scores import read_judgements
from emergent_alignment.evaluation.misalignment.wanted_answers import AnswerPlace
from emergent_alignment.reports.results_page import write_report
from emergent_alignment.runs import own_answers, reviewed_targets, rounds
from emergent_alignment.runs.workdir import check_same_run, claim, read_run_file
from emergent_alignment.self_align.instructions import stage as instructions
from emergent_alignment.self_align.reinforcement import frozen_features, reward_training
from emergent_alignment.self_align.reinforcement.rollouts import (
    Rollout,
    read_rollout,
    write_rollout,
)
from emergent_alignment.self_align.stages import StageResult, stage_folder
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_lines import append_json_lines, read_json_lines
from emergent_alignment.storage.json_values import digest
from emergent_alignment.training.checkpoints import RunIdentity
from emergent_alignment.training.metrics import METRICS_FILE, metrics_by_step

_USER = [{"role": "user", "content": "May I?"}]
_REVIEWED = {
    "step": 0, "place": 0, "row": 3, "prompt": _USER, "candidate": "Yes.", "candidate_score": -1.5,
    "scored_by": "Yes/No", "failure": "", "critique": "", "revision": "No.", "revision_score": 2.5,
    "link": "fresh", "outcome": "revised_fresh",
    "attempts": [
        {"link": "fresh", "text": "No.", "score": 2.5, "reason": "", "failure": ""},
    ],
}  # fmt: skip
_FORM = {"question": "advice", "layout": "quote", "polarity": "both", "evidence": ""}
_FORM |= {"auc": [0.8, 0.7, 0.9], "told_apart": [0.75, 0.6, 0.85]}
_REPORT = _FORM | {
    "threshold": -0.5,
    "flag_rate_harmful": [0.5, 0.3, 0.7],
    "flag_rate_safe": [0.05, 0.01, 0.2],
    "scores_safe": [0.5, 1.5],
    "scores_harmful": [-0.5, 0.25],
}
CALIBRATION = {
    "model": "tiny", "pairs_selecting": 4, "pairs_reporting": 2, "candidates": [_FORM],
    "by_evidence": {"none": _REPORT}, "chosen": _REPORT, "sees": True, "verdict": "It sees.",
    "source": "harmful_advice",
}  # fmt: skip
_INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
_EVALUATION = {
    "arm": "plain", "margin": _INTERVAL | {"per_item": [0.1, 0.2]}, "task_loss": _INTERVAL,
    "flag_rate": _INTERVAL, "kl": _INTERVAL, "code": None, "samples": [],
}  # fmt: skip
_JUDGED = {
    "arm": "plain", "limits": {"misaligned_below": 30.0, "coherent_above": 50.0},
    "judge": {"name": "frozen", "identity": {"parameters": "x"}, "notes": []},
    "sampling": {"questions": "q", "max_new_tokens": 8, "temperature": 1.0, "top_p": 1.0},
    "overall": {"misaligned_share": dict.fromkeys(("of_all", "of_scored", "of_coherent"))},
}  # fmt: skip


@dataclass(frozen=True)
class OwnFile:
    """A file: `write` makes it in a folder and says where it is; `read` reads it as a later start
    does; `checked` where it has a check, so that no flipped bit may pass."""

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    checked: bool = False


def _json(name: str, value: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_json(folder / name, value)
        return folder / name

    return write


def _lines(name: str, records: list[dict]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with (folder / name).open("ab", buffering=0) as file:
            append_json_lines(file, records)
        return folder / name

    return write


def _write_run(folder: Path) -> Path:
    claim(folder, Config(), RunIdentity("f" * 16, "d" * 16))
    return folder / "run.json"


def _read_run(path: Path) -> Any:
    check_same_run(path.parent, Config())
    return read_run_file(path.parent)


def _write_journal(folder: Path) -> Path:
    journal = Journal(folder, first_step=0)
    journal.write([_REVIEWED, _REVIEWED | {"place": 1, "candidate_score": None}])
    journal.close()
    return journal.path


def _read_whole_journal(path: Path) -> Any:
    check_journal(path.parent)
    return read_journal(path.parent)


def _skipping(path: Path) -> str:
    """Serve and reports leave out what cannot be read: never an error."""
    read_journal(path.parent, lambda where: None)
    return ""


def _metrics(folder: Path) -> Path:
    lines = [{"step": step, "loss": 1.5 - step, "flag_rate": 0.25, "gap": None} for step in (0, 1)]
    return _lines(METRICS_FILE, lines)(folder)


def _write_growing(folder: Path) -> Path:
    GrowingFolder(folder).claim(ANSWERS, {"model": "tiny"}, overwrite=False)
    return folder / "settings.json"


def _read_growing(path: Path) -> str:
    GrowingFolder(path.parent).claim("scores", {"model": "tiny"}, overwrite=False)
    return ""


def _write_stage(folder: Path) -> Path:
    stage = stage_folder(folder, 2)
    stage.claim({"stage": 2, "settings": {"seed": 0}})
    return stage.claim_file


def _read_stage(path: Path) -> str:
    stage_folder(path.parents[1], 2).claim({"stage": 2, "settings": {"seed": 0}})
    return ""


def _write_manifest(folder: Path) -> Path:
    stage = stage_folder(folder, 2)
    stage.write_rows([{"instruction": "Tea?", "response": "Yes."}])
    stage.finish({"stage": 2}, StageResult({"made": 1}, [{"text": "x"}]), 1.5)
    return stage.manifest_file


def _write_rounds(folder: Path) -> Path:
    topic = {"made": 2, "kept": [["kind", "topic"]], "dropped": {"long": 1}}
    row = {"instruction": "Tea?", "kind": "", "topic": "", "source": "self_instruct"}
    one = {"made": {"self_instruct": 2}, "kept": [row], "dropped": {}, "shown": []}
    records = [("topics", 0, topic), ("instructions", 0, one), ("instructions", 1, one)]
    named = [dict(zip(("phase", "number", "round"), record)) for record in records]
    stage = stage_folder(folder, 1)
    stage.path.mkdir()
    return _lines("rounds.jsonl", named)(stage.path)


def _read_rounds(path: Path) -> Any:
    stage = stage_folder(path.parents[1], 1)
    return [instructions._records(stage, phase) for phase in ("topics", "instructions")]


def _write_pool(folder: Path) -> Path:
    entry = {"kind": "role_play", "prompt": "Play.", "origin": "given"}
    record = {"round": 0, "first_step": 0, "trials": [], "variants": [], "pool": [entry]}
    return _json("round-000.json", record | {"digest": digest(record)})(folder)


def _write_blocks(folder: Path) -> Path:
    blocks = [{"epoch": 0, "first_document": 0, "first_window": 0}]
    record = {"identity": "x", "blocks": blocks}
    return _json("blocks.json", record | {"digest": digest(record)})(folder)


def _write_rollout(folder: Path) -> Path:
    by_token = [np.ones((2, 3, 4), np.float32)] * 5
    rollout = Rollout(
        np.ones((2, 5), np.int32), np.ones(2, np.int32), np.ones((2, 3, 4), np.int32),
        np.ones((2, 3), np.int32), *by_token, np.ones((2, 3), np.float32),
        np.array('{"rollout/reward": 0.5}'),
    )  # fmt: skip
    write_rollout(folder / "000000.host-000.npz", rollout)
    return folder / "000000.host-000.npz"


def _read_rollout(path: Path) -> Any:
    return [array.tolist() for array in vars(read_rollout(path)).values()]


def _write_features(folder: Path) -> Path:
    path = folder / "0000000.npy"
    path.write_bytes(frozen_features._checked(np.ones((3, 2, 4), np.float32)))
    return path


def _read_features(path: Path) -> Any:
    return frozen_features._read_part(path, 3).tolist()


def _in_report(name: str, value: Any) -> OwnFile:
    """A file of an arm that a report shows."""

    def write(folder: Path) -> Path:
        write_json(folder / "calibration.json", CALIBRATION)
        for arm in ("base", "plain"):
            (folder / arm).mkdir()
            write_json(folder / arm / "evaluation.json", _EVALUATION | {"arm": arm})
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if path.suffix == ".jsonl":
            return _lines(name, value)(folder)
        write_json(path, value)
        return path

    def read(path: Path) -> str:
        root = next(folder for folder in path.parents if (folder / "base").is_dir())
        write_report(root)
        return ""

    return OwnFile(write, read)


_PLACE = {"question": "sky", "paraphrase": 0, "sample": 0}
_ANSWER = _PLACE | {"messages": _USER, "answer": "Blue.", "num_tokens": 2, "ended": True}
_SCORE = _PLACE | {"measure": "aligned", "score": 80.5, "number_mass": 0.75, "reason": ""}
_SCORE |= {"reply": ""}
_KEPT_REVIEW = {"row": 3, "journal": _REVIEWED, "chosen": [1, 2], "reference": [-3.5, -4.5]}
_OWN = {"prompt": 0, "tokens": [1, 2], "text": "Yes.", "ended": True}
_PAIR = {"place": 0, "prompt": [5], "chosen": [1, 2], "rejected": [3], "reference": [-3.5, -4.5]}
_NO_PAIR = {"place": 1, "prompt": [6], "chosen": None, "rejected": None, "reference": None}
_ROUND = {"step": 0, "rows": [_PAIR, _NO_PAIR], "scores": [0.5, -1.5], "yardstick": []}
_MEASURED = {"accuracy": _INTERVAL, "mean": 0.5, "deviation": 1.5, "held_out": 4}

FILES = {
    "calibration.json": OwnFile(_json("calibration.json", CALIBRATION), read_calibration),
    "run.json": OwnFile(_write_run, _read_run),
    "journal, resumed": OwnFile(_write_journal, _read_whole_journal, True),
    "journal, served": OwnFile(_write_journal, _skipping),
    "metrics.jsonl": OwnFile(_metrics, lambda path: metrics_by_step(path.parent), True),
    "settings.json": OwnFile(_write_growing, _read_growing),
    "kept answers": OwnFile(
        _lines("answers.jsonl", [_ANSWER]),
        lambda path: list(
            GrowingFolder(path.parent).records(ANSWERS, place_shape(AnswerPlace) | ANSWER_RECORD)
        ),
        True,
    ),
    "kept scores": OwnFile(
        _lines("scores-frozen.jsonl", [_SCORE]),
        lambda path: [
            str(one) for one in read_judgements(GrowingFolder(path.parent), "frozen").items()
        ],
        True,
    ),
    "stage.json": OwnFile(_write_stage, _read_stage),
    "manifest.json": OwnFile(
        _write_manifest, lambda path: stage_folder(path.parents[1], 2).manifest()
    ),
    "rounds of instructions": OwnFile(_write_rounds, _read_rounds, True),
    "pools of attacks": OwnFile(_write_pool, pool._checked, True),
    "reviews of targets": OwnFile(
        _lines("reviews.jsonl", [_KEPT_REVIEW]),
        lambda path: list(read_json_lines(path, reviewed_targets._KEPT)),
        True,
    ),
    "own answers": OwnFile(
        _lines("own.jsonl", [_OWN]),
        lambda path: list(read_json_lines(path, own_answers._KEPT)),
        True,
    ),
    "rounds of listening": OwnFile(
        _lines("rounds.jsonl", [_ROUND]),
        lambda path: list(read_json_lines(path, rounds._ROUND)),
        True,
    ),
    "blocks.json": OwnFile(_write_blocks, lambda path: windows._read_kept(path) and ""),
    "rollouts": OwnFile(_write_rollout, _read_rollout),
    "hidden states": OwnFile(_write_features, _read_features, True),
    "reward_model.json": OwnFile(
        _json("reward_model.json", _MEASURED),
        lambda path: read_json_file(path, reward_training._MEASURED, "put it back"),
    ),
    "result of a judge": OwnFile(_json("result-frozen.json", _JUDGED), read_result),
    "reports: evaluation.json": _in_report("plain/evaluation.json", _EVALUATION),
    "reports: metrics.jsonl": _in_report("plain/metrics.jsonl", [{"step": 0, "loss": 1.5}]),
    "reports: journal": _in_report("plain/journal/step-00000000.host-000.jsonl", [_REVIEWED]),
    "reports: calibration.json": _in_report("calibration.json", CALIBRATION),
    "reports: run.json": _in_report("plain/run.json", {"config": {}, "frozen": "f", "data": "d"}),
}
