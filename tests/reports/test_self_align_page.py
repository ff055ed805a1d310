"""The page of a SELF-ALIGN work directory: what each stage made, however far it has come."""

import json
import re
import shutil

import numpy as np
import pytest

from emergent_alignment.cli.main import main
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.evaluate import summarize_choices
from emergent_alignment.evaluation.choices.items import Choice
from emergent_alignment.reports.self_align_page import write_self_align_report
from emergent_alignment.reports.self_align_stages import funnels, read_stages
from emergent_alignment.self_align.stages import StageResult, stage_folder

HOSTILE = "<script>alert(1)</script> & {{ 777*777 }}"
FUNNEL = {"made": 40, "kept": 30, "dropped": {"similar": 7, "length": 3}}


def finished(workdir, number, counts, examples=(), rows=()):
    folder = stage_folder(workdir, number)
    identity = {"stage": number, "settings": {"model": {"path": HOSTILE}, "seed": 0}}
    folder.claim(identity)
    folder.write_rows(rows)
    folder.finish(identity, StageResult(counts, list(examples)), 90.0)


def choices(shift):
    """A result over three questions and two pairs, better the larger `shift`."""
    items = [Choice(f"q{i}", "any", "?", ("r",), ("w", "v")) for i in range(3)]
    items += [Choice(f"p{i}", "honest", "?", ("r",), ("w",), True) for i in range(2)]
    found = {(f"q{i}", 0): np.array([shift - i, 0.5, 0.2]) for i in range(3)}
    found |= {(f"p{i}", order): np.array([shift, 0.5]) for i in range(2) for order in (0, 1)}
    return summarize_choices(items, found)


@pytest.fixture
def workdir(tmp_path):
    """Four finished stages, and three models that were evaluated."""
    kept = {"instruction": HOSTILE, "kind": "science", "topic": "ice", "outcome": "kept"}
    dropped = {"instruction": "Again", "like": "Once more", "outcome": "similar"}
    nested = FUNNEL | {"topics": {"made": 9, "kept": 4, "dropped": {"form": 5}}, "rounds": 3}
    finished(tmp_path, 1, nested, [kept, dropped], [{"instruction": f"Do {i}"} for i in range(90)])
    answers = {"prompt": "Why?", "response": "So.", "principles": ["candor"], "thoughts": "hm"}
    finished(tmp_path, 2, FUNNEL, [answers | {"dropped_by": "echo"}], [answers])
    for number in (3, 4):
        finished(tmp_path, number, {"made": 30, "kept": 30, "dropped": {}, "steps": 4})
        run = stage_folder(tmp_path, number).run
        run.mkdir()
        metric = "task_loss" if number == 3 else "explained_variance"
        rows = [
            {"step": i, metric: 3 / (i + 1), "clip_share": 0, "seconds_share/step": i}
            for i in range(4)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for arm, shift in (("base", 0.0), ("engraving", 1.2), ("reinforcement", 2.7)):
        path = tmp_path / "evaluation" / arm / "choices" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"arm": arm} | choices(shift)))
    return tmp_path


def test_the_page_shows_every_stage_and_escapes_it(workdir):
    path, _ = write_self_align_report(workdir)
    page = path.read_text("utf-8")
    assert path == workdir / "self_align.html"
    assert (
        HOSTILE not in page and page.count("&lt;script&gt;alert(1)") >= 2 and "603729" not in page
    )
    for text in ("dropped: similar", "What was kept: topics", "dropped: form", "30 of 90 rows",
                 ">echo</span>", "candor", "stage 3 task loss", "stage 4 explained variance",
                 "stage 4 clip share",
                 "Done, in 1.5 minutes"):  # fmt: skip
        assert text in page, text
    assert "seconds share" not in page and "Left out" not in page and "Not begun" not in page


def test_the_table_compares_each_model_with_the_base_over_the_same_items(workdir):
    _, table = write_self_align_report(workdir)
    assert table[0] == ["measure", "base", "engraving", "reinforcement"]
    rows = {row[0]: row[1:] for row in table[1:]}
    mc1 = rows["MC1 (guessing: 0.33)"]
    assert [cell[:4] for cell in mc1] == ["0.00", "0.33", "1.00"]
    changed = rows["MC1: minus base's"]
    assert [cell[:4] for cell in changed] == ["", "0.33", "1.00"]
    assert changed[2] == "1.00 [1.00, 1.00]"
    assert rows["A/B accuracy: minus base's"][1][:4] == "0.00"  # one letter in both orders: half


def test_a_funnel_that_does_not_name_its_parts_is_left_out():
    found = list(funnels(FUNNEL | {"topics": {"made": 2, "kept": 1}, "kinds": {"law": 3}}))
    assert [(one.name, one.made, one.kept) for one in found] == [("all", 40, 30), ("topics", 2, 1)]
    assert found[0].texts()[1:3] == [("kept", "30", "75.0%"), ("dropped: similar", "7", "17.5%")]


def test_intervals_and_conversations_are_shown_as_text(workdir):
    turns = [{"role": "user", "content": "Hello?"}, {"role": "user", "content": "Anyone?"}]
    accuracy = {"value": 0.625, "low": 0.5, "high": 0.75, "n": 40}
    counts = {"made": 1, "kept": 1, "dropped": {}, "reward_model": {"accuracy": accuracy}}
    shutil.rmtree(stage_folder(workdir, 4).path)
    finished(workdir, 4, counts, rows=[{"prompt": turns, "chosen": "Yes."}])
    page = write_self_align_report(workdir)[0].read_text("utf-8")
    assert "accuracy 0.62 [0.50, 0.75] of 40" in page
    assert "user: Hello?\n\nuser: Anyone?" in page


def test_half_finished_folders_have_a_page_that_says_so(workdir):
    (stage_folder(workdir, 3).path / "manifest.json").unlink()
    shutil.rmtree(stage_folder(workdir, 4).path)
    shutil.rmtree(workdir / "evaluation")
    data = stage_folder(workdir, 2).data
    data.write_bytes(data.read_bytes() + b'{"prompt": "cut of\xe2')
    path, table = write_self_align_report(workdir)
    page = path.read_text("utf-8")
    assert table == [] and "no model has been evaluated yet" in page
    assert page.count("Begun, not finished.") == page.count("Not begun.") == 1
    assert "2_answers/data.jsonl: left out unreadable lines 2" in page
    assert "stage 3 task loss" in page  # the curve so far


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"counts": 3, "examples": {"a": 1}, "seconds": "x"}']
)
def test_a_broken_manifest_does_not_break_the_page(workdir, broken):
    (stage_folder(workdir, 1).path / "manifest.json").write_text(broken)
    page = write_self_align_report(workdir)[0].read_text("utf-8")
    assert "Stage 4" in page


def test_what_is_no_work_directory_or_no_page_is_refused(workdir, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_self_align_report(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no stage has begun"):
        write_self_align_report(tmp_path / "empty")
    other = tmp_path / "mine.html"
    other.write_text("mine")
    with pytest.raises(UserError, match="not a report"):
        write_self_align_report(workdir, output=other)
    write_self_align_report(workdir)
    write_self_align_report(workdir)  # its own page is replaced


def test_report_on_the_command_line_knows_such_a_folder(workdir, capsys):
    assert main(["report", str(workdir)]) == 0
    said = capsys.readouterr().out
    assert "before and after" in said and f"report: {workdir}/self_align.html" in said
    page = (workdir / "self_align.html").read_text("utf-8")
    assert not re.search(r'(src|href)="http', page)


def test_states_are_read_off_the_files(workdir):
    assert [stage.state for stage in read_stages(workdir)] == ["done"] * 4
