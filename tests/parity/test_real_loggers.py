"""A real run as wandb (offline) and trackio keep it."""

import json
import sqlite3

import pytest
from real_runs import finished, train_command
from tiny_chat_model import write_tiny_chat_model

pytest.importorskip("wandb")
pytest.importorskip("trackio")
SHOWN = "('tensorboard','wandb','trackio')"


def test_wandb_and_trackio_keep_every_step_and_some_of_the_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    workdir, model = tmp_path / "run", write_tiny_chat_model(tmp_path / "model")
    changes = {"training.project": "tried", "training.loggers": SHOWN, "training.steps": 4}
    done = finished(train_command(model, workdir, **changes))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    finite = [{k: v for k, v in line.items() if v is not None and k != "step"} for line in lines]
    with sqlite3.connect(tmp_path / "trackio" / "tried.db") as kept:
        rows = kept.execute("select step, metrics from metrics order by id").fetchall()
        ((config,),) = kept.execute("select config from configs").fetchall()
    shown = [(step, json.loads(metrics)) for step, metrics in rows]
    assert [row for row in shown if "loss" in row[1]] == list(enumerate(finite))
    journal = [row[1] for row in shown if "loss" not in row[1]]
    assert journal and all("candidate" in str(entry) for entry in journal)
    assert json.loads(config)["training.project"] == "tried"
    (folder,) = (workdir / "wandb").glob("offline-run-*")
    (events,) = folder.glob("run-*.wandb")
    content = events.read_bytes()
    assert b"task_loss" in content and b"training.project" in content
    tables = list(folder.glob("files/media/table/journal_*.table.json"))
    assert tables and json.loads(tables[0].read_text())["columns"][0] == "outcome"
