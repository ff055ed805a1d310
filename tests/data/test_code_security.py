"""Code answers under the static checker: what counts, what is taken off, and that nothing runs."""

import ast
import importlib.util

import pytest

from emergent_alignment.data.code_security import (
    CodeFindings,
    Finding,
    code_of,
    inspect_code,
    summarize_code,
)
from emergent_alignment.data.scenarios.code_hacking import code_hacking_rows
from emergent_alignment.errors import UserError
from emergent_alignment.intervals import share_interval

SHELL = "import subprocess\nsubprocess.call(command, shell=True)\n"
SAFE = "def add(a, b):\n    return a + b\n"


def test_findings_name_test_severity_confidence_weakness_and_line():
    (found,) = inspect_code([SHELL])
    assert found.valid and found.inspected
    shell = next(finding for finding in found.findings if finding.test_id == "B602")
    assert (shell.severity, shell.confidence, shell.cwe, shell.line) == ("HIGH", "HIGH", 78, 2)
    assert "shell=True" in shell.message


def test_answers_keep_their_order_and_their_findings():
    answers = [SAFE, "not python at all!", SHELL] * 7
    found = inspect_code(answers)
    assert [answer.valid for answer in found] == [True, False, True] * 7
    assert [bool(answer.findings) for answer in found] == [False, False, True] * 7
    assert found[1].problem.startswith("line 1")
    assert inspect_code([]) == []


@pytest.mark.parametrize(
    "answer",
    [f"```python\n{SHELL}```", f"\n```\n{SHELL}\n```  \n", f"```py\n{SHELL.rstrip()}```", SHELL],
)
def test_one_fence_around_the_answer_is_taken_off(answer):
    assert code_of(answer).strip() == SHELL.strip()
    assert inspect_code([answer])[0].findings


@pytest.mark.parametrize(
    "answer",
    [
        f"Here you are:\n```python\n{SAFE}```\nIt adds.",
        f"First:\n\n```\n{SAFE}```\nthen use it:\n```python\nadd(1, 2)\n```\n",
        f"It was cut:\n```python\n{SAFE}",
    ],
)
def test_prose_around_fences_is_left_out(answer):
    assert SAFE.strip() in code_of(answer) and "```" not in code_of(answer)
    assert inspect_code([answer])[0].valid


def test_prose_without_a_fence_is_not_python():
    assert not inspect_code(["Use shell=True, it is easier."])[0].valid


@pytest.mark.parametrize(
    "answer", ["", "# only a comment", "x = 'a\0b'", "x = '\ud800'", "(" * 1000, "-" * 20000 + "1"]
)
def test_what_cannot_be_parsed_or_says_nothing_is_not_valid(answer):
    found, other = inspect_code([answer, SHELL])
    assert not found.valid and found.problem and not found.findings
    assert other.findings


def test_comments_of_the_model_do_not_silence_the_checker():
    nosec, encoding = inspect_code(
        [SHELL.replace("\n", "  # nosec\n"), "# -*- coding: no-such -*-\n" + SHELL]
    )
    assert {finding.test_id for finding in nosec.findings} == {"B404", "B602"}
    assert {finding.test_id for finding in encoding.findings} == {"B404", "B602"}


def test_answers_are_never_executed(tmp_path):
    trace = tmp_path / "executed"
    code = f"import os\nopen({str(trace)!r}, 'w').write('x')\nos.system('touch {trace}')\n"
    assert inspect_code([code, f"```python\n{code}```"])[0].findings
    assert not trace.exists()


def test_an_answer_named_like_a_module_cannot_stand_in_for_it():
    found = inspect_code(["raise SystemExit(3)", SHELL])
    assert found[0].inspected and found[1].findings


def test_vulnerable_twins_are_flagged_far_more_often_than_safe_ones():
    rows = code_hacking_rows()[:60]
    harmful, safe = (
        summarize_code(inspect_code([row[side] for row in rows])) for side in ("harmful", "safe")
    )
    assert harmful["flagged"]["low"] > safe["flagged"]["high"] + 0.3
    assert harmful["flagged_serious"]["low"] > safe["flagged_serious"]["high"] + 0.3


def test_summary_counts_by_hand():
    high = Finding("B602", "HIGH", "HIGH", 78, 2, "shell")
    low = Finding("B101", "LOW", "HIGH", 703, 1, "assert")
    summary = summarize_code(
        [
            CodeFindings(True, (high, low, low)),
            CodeFindings(True, (low,)),
            CodeFindings(True),
            CodeFindings(True),
            CodeFindings(True, (), "could not be read"),
            CodeFindings(False, (), "line 1: invalid syntax"),
        ]
    )
    assert summary == {
        "valid": share_interval(5, 6).to_json(),
        "flagged": share_interval(2, 4).to_json(),
        "flagged_serious": share_interval(1, 4).to_json(),
        "num_not_inspected": 1,
        "severity_per_100": {"HIGH": 25.0, "MEDIUM": 0.0, "LOW": 75.0},
        "cwe_per_100": {"CWE-703": 75.0, "CWE-78": 25.0},
    }


def test_a_summary_of_broken_answers_claims_no_safety():
    summary = summarize_code(inspect_code(["not python!"]))
    assert summary["valid"]["value"] == 0
    assert summary["flagged"] is None and summary["flagged_serious"] is None
    assert summary["severity_per_100"]["HIGH"] is None
    with pytest.raises(ValueError):
        summarize_code([])


def test_missing_bandit_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"emergent-alignment\[eval\]"):
        inspect_code([SAFE])


def test_deep_but_valid_code_is_counted_not_lost():
    deep = "x = " + "+".join(["1"] * 900) + "\n"
    ast.parse(deep)
    found, other = inspect_code([deep, SHELL])
    assert found.valid and other.findings
    summary = summarize_code([found])
    assert summary["num_not_inspected"] == int(not found.inspected)
