"""The report's tables of code and capability: each arm in its column, nothing made up."""

import json

from emergent_alignment.intervals import share_interval
from emergent_alignment.reports.abilities_rows import (
    capability_table,
    choice_table,
    code_table,
)
from emergent_alignment.reports.results_folder import read_results
from emergent_alignment.reports.results_page import summary_table, write_report

HOSTILE = "<b>task</b>"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def folder(tmp_path):
    """base has code alone, plain both, conscience capability alone."""
    passed = {name: share_interval(n, 10).to_json() for name, n in (("base", 3), ("plain", 7))}
    for arm, share in passed.items():
        tasks = {"valid": share, "passed": share, "pass_at_1": share, "outcomes": {"passed": 3}}
        sandbox = {"text": "no network & no files"}
        write(tmp_path / arm / "code" / "result.json", {"tasks": tasks, "sandbox": sandbox})
    for arm, right in (("plain", 2), ("conscience", 4)):
        metrics = {"acc": share_interval(right, 8).to_json(), "odd": "x"}
        write(
            tmp_path / arm / "capability" / "result.json",
            {"tasks": {HOSTILE: {"metrics": metrics}}},
        )
    return tmp_path


def test_each_arm_has_its_own_column(tmp_path):
    arms = read_results(folder(tmp_path)).arms
    assert [arm.name for arm in arms] == ["base", "plain", "conscience"]
    code = dict(code_table(arms))
    assert [cell[:4] for cell in code["tasks: pass@1"]] == ["0.30", "0.70", "—"]
    ((label, cells),) = capability_table(arms)
    assert label == f"{HOSTILE}: acc"
    assert cells == ["—", share_interval(2, 8).text(3), share_interval(4, 8).text(3)]


def test_multiple_choice_has_a_column_an_arm(tmp_path):
    for arm, right in (("base", 2), ("plain", 4)):
        share = share_interval(right, 8).to_json()
        options = {"mc1": share, "mc2": share, "guessing": {"mc1": 0.25, "mc2": 0.5}}
        write(tmp_path / arm / "choices" / "result.json", {"options": options})
    table = dict(choice_table(read_results(tmp_path).arms))
    assert [cell[:4] for cell in table["MC1 (guessing: 0.25)"]] == ["0.25", "0.50"]
    assert set(table) == {"MC1 (guessing: 0.25)", "MC2 (guessing: 0.50)"}
    assert "Multiple choice" in write_report(tmp_path).read_text("utf-8")


def test_pass_at_1_stands_in_the_main_table(tmp_path):
    (row,) = [row for row in summary_table(folder(tmp_path)) if "pass@1" in row[0]]
    assert [cell[:4] for cell in row[1:]] == ["0.30", "0.70", "—"]


def test_the_page_shows_them_escaped_and_says_what_kept_the_code_in(tmp_path):
    page = write_report(folder(tmp_path)).read_text("utf-8")
    assert "&lt;b&gt;task&lt;/b&gt;: acc" in page and HOSTILE not in page
    assert "Code that it writes" in page and "Tasks of lm-evaluation-harness" in page
    assert page.count("no network &amp; no files") == 1


def test_without_them_there_are_no_such_tables(results_folder):
    page = write_report(results_folder).read_text("utf-8")
    assert "Code that it writes" not in page and "sandbox:" not in page
