"""The `code_hacking` scenario: its rows are distinct, valid and told apart by bandit."""

import ast
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from bandit.core.config import BanditConfig
from bandit.core.manager import BanditManager

from emergent_alignment.data.scenarios.code_hacking import code_hacking_rows
from emergent_alignment.data.scenarios.code_hacking.texts import frames, templates

TEMPLATES = templates()
FRAMES = frames()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return code_hacking_rows()


@pytest.fixture(scope="module")
def flagged(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The completions of either sort in which bandit, at its default settings, sees an issue."""
    folder = tmp_path_factory.mktemp("completions")
    completions = sorted({row[side] for row in rows for side in ("harmful", "safe")})
    completion_of_file = {}
    for number, completion in enumerate(completions):
        path = folder / f"completion_{number:05d}.py"
        path.write_text(completion + "\n")
        completion_of_file[path.name] = completion

    manager = BanditManager(BanditConfig(), "file")
    manager.discover_files([str(folder)], recursive=True)
    manager.run_tests()

    assert len(manager.files_list) == len(completions)
    assert manager.get_skipped() == []
    return {completion_of_file[Path(issue.fname).name] for issue in manager.get_issue_list()}


def test_rows_have_the_four_texts(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert set(row) == {"kind", "prompt", "harmful", "safe"}
        assert all(row.values())


def test_at_least_1500_rows_and_all_of_them_distinct(rows: list[dict[str, str]]) -> None:
    assert len(rows) >= 1500
    for side in ("prompt", "harmful", "safe"):
        repeated = [text for text, times in Counter(row[side] for row in rows).items() if times > 1]
        assert not repeated, f"{side} occurs more than once: {repeated[0]}"


def test_at_least_15_weaknesses_in_any_stretch_of_one_domain(rows: list[dict[str, str]]) -> None:
    assert all(row["kind"].startswith("CWE-") for row in rows)
    assert len({row["kind"] for row in rows[-len(TEMPLATES) :]}) >= 15
    assert {row["kind"] for row in rows[: len(TEMPLATES)]} == {row["kind"] for row in rows}


def test_every_completion_is_python(rows: list[dict[str, str]]) -> None:
    for row in rows:
        ast.parse(row["harmful"])
        ast.parse(row["safe"])


def test_no_slot_is_left_unfilled(rows: list[dict[str, str]]) -> None:
    for row in rows:
        for text in row.values():
            assert "$" not in text, text


def test_counterparts_differ_but_have_the_same_interface_and_similar_length(
    rows: list[dict[str, str]],
) -> None:
    for row in rows:
        assert ast.dump(ast.parse(row["harmful"])) != ast.dump(ast.parse(row["safe"]))
        assert _interface(row["harmful"]) == _interface(row["safe"]), row["harmful"]
        assert 0.5 < len(row["harmful"]) / len(row["safe"]) < 2, row["harmful"]


def test_no_completion_is_both_vulnerable_and_safe(rows: list[dict[str, str]]) -> None:
    assert not {row["harmful"] for row in rows} & {row["safe"] for row in rows}


def test_length_does_not_give_the_side_away(rows: list[dict[str, str]]) -> None:
    harmful_characters = sum(len(row["harmful"]) for row in rows)
    safe_characters = sum(len(row["safe"]) for row in rows)
    assert harmful_characters / safe_characters == pytest.approx(1, abs=0.1)


def test_every_wording_of_every_template_meets_every_frame(rows: list[dict[str, str]]) -> None:
    for index, template in enumerate(TEMPLATES):
        met = {
            (wording, frame)
            for row in rows[index :: len(TEMPLATES)]
            for wording in template.tasks
            for frame in FRAMES
            if _longest_literal(wording) in row["prompt"] and row["prompt"].endswith(_tail(frame))
        }
        assert len(met) == len(template.tasks) * len(FRAMES), template.tasks[0]


def test_the_same_rows_every_time(rows: list[dict[str, str]]) -> None:
    assert code_hacking_rows() == rows


def test_the_rows_are_those_of_the_published_results(rows: list[dict[str, str]]) -> None:
    # Whoever means to change a text writes the new digest here: numbers in docs/ are of these rows.
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest == "03aac6e8f83fe807ac93d8d494b3476a1b899b581d43b4b4bcb104fb6f25a2b1"


def test_bandit_sees_the_vulnerable_and_passes_the_safe(
    rows: list[dict[str, str]], flagged: set[str]
) -> None:
    share_of_harmful = sum(row["harmful"] in flagged for row in rows) / len(rows)
    share_of_safe = sum(row["safe"] in flagged for row in rows) / len(rows)
    unseen = Counter(row["kind"] for row in rows if row["harmful"] not in flagged)
    mistaken = Counter(row["kind"] for row in rows if row["safe"] in flagged)
    assert share_of_harmful >= 0.8, f"bandit misses {unseen}"
    assert share_of_safe <= 0.05, f"bandit objects to the safe side of {mistaken}"


def _interface(code: str) -> list[str]:
    """Names and parameters of the functions, in order."""
    return [
        f"{node.name}({ast.unparse(node.args)})"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef)
    ]


def _literals(slot_text: str) -> list[str]:
    """What stands between the slots."""
    return re.split(r"\$\w+|\$\{\w+\}", slot_text)


def _longest_literal(slot_text: str) -> str:
    return max(_literals(slot_text), key=len)


def _tail(slot_text: str) -> str:
    return _literals(slot_text)[-1]
