"""The journal: what was reviewed, as it was, whatever happened to the process."""

import json

import numpy as np
import pytest

from emergent_alignment.conscience.journal import Journal, check_journal, read_journal
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.pairs import Attempt, Reviewed
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.storage.json_lines import append_json_lines, read_json_lines

PROMPT = [{"role": "user", "content": "Grüße — was nun? 🙂\nZweite Zeile\u2028dritte"}]


def answer(text):
    return Answer([1, 2], np.zeros(2, np.float32), text, True)


def reviewed(outcome="revised_fresh", *attempts, score=-1.0, candidate="bad"):
    return Reviewed(PROMPT, candidate, score, outcome, "It harms.", attempts)


def record(step, place=0, **changes):
    return journal_record(reviewed(**changes), step=step, place=place, row=place + 7)


def write(directory, first_step, *records):
    shard = Journal(directory, first_step=first_step)
    shard.write(list(records))
    shard.close()
    return shard.path


def test_a_revised_candidate_is_there_with_its_revision_and_every_attempt():
    found = journal_record(
        reviewed(
            "revised_fresh",
            Attempt("rewrite", answer("still bad"), -2.0, "disapproved"),
            Attempt("fresh", answer("good"), 1.5, ""),
        ),
        step=3,
        place=1,
        row=8,
    )
    assert (found["step"], found["place"], found["row"]) == (3, 1, 8)
    assert (found["prompt"], found["candidate"], found["candidate_score"]) == (PROMPT, "bad", -1.0)
    assert (found["revision"], found["revision_score"], found["link"]) == ("good", 1.5, "fresh")
    assert found["critique"] == "It harms."
    assert [(a["link"], a["text"], a["score"], a["reason"]) for a in found["attempts"]] == [
        ("rewrite", "still bad", -2.0, "disapproved"),
        ("fresh", "good", 1.5, ""),
    ]


def test_a_dropped_candidate_shows_the_last_attempt():
    failed = Attempt("fresh", answer("bad too"), -3.0, "disapproved")
    found = journal_record(reviewed("dropped_disapproved", failed), step=0, place=0, row=0)
    assert (found["revision"], found["outcome"]) == ("bad too", "dropped_disapproved")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_null(tmp_path, score):
    failed = Attempt("fresh", answer("?"), score, "not_finite")
    found = journal_record(
        reviewed("dropped_not_finite", failed, score=score), step=0, place=0, row=0
    )
    write(tmp_path, 0, found)
    (kept,) = read_journal(tmp_path)
    assert kept["candidate_score"] is kept["revision_score"] is None
    assert kept["attempts"][0]["score"] is None


def test_every_text_comes_back_as_it_was(tmp_path):
    written = [
        record(0, place, candidate=text) for place, text in enumerate(["", "a\r\nb", "\x00"])
    ]
    write(tmp_path, 0, *written)
    assert read_journal(tmp_path) == written


def test_records_are_on_the_disk_once_write_returns(tmp_path):
    shard = Journal(tmp_path, first_step=0)
    shard.write([record(0)])
    assert read_journal(tmp_path) == [record(0)], "while the shard is still open"
    shard.close()


def test_a_later_start_s_record_of_the_same_place_counts(tmp_path):
    write(tmp_path, 0, *[record(step, candidate="old") for step in (0, 1, 2, 3)])
    write(tmp_path, 2, *[record(step, candidate="new") for step in (2, 3)])
    write(tmp_path, 10, record(10, candidate="last"))
    found = [(r["step"], r["candidate"]) for r in read_journal(tmp_path)]
    assert found == [(0, "old"), (1, "old"), (2, "new"), (3, "new"), (10, "last")]


def test_a_start_at_the_same_step_goes_on_in_the_same_shard(tmp_path):
    first = write(tmp_path, 0, record(0, candidate="old"), record(1, candidate="old"))
    assert write(tmp_path, 0, record(0, candidate="new")) == first
    assert [r["candidate"] for r in read_journal(tmp_path)] == ["new", "old"]


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_start(tmp_path, cut):
    path = write(tmp_path, 0, record(0), record(1))
    torn = json.dumps(record(2), ensure_ascii=False).encode()[:cut]
    with path.open("ab") as file:
        file.write(torn)
    assert [r["step"] for r in read_journal(tmp_path)] == [0, 1]
    write(tmp_path, 0, record(2))
    assert [r["step"] for r in read_journal(tmp_path)] == [0, 1, 2]
    assert [json.loads(line)["step"] for line in path.read_text("utf-8").split("\n")[:-1]] == [
        0,
        1,
        2,
    ]


def test_a_line_torn_within_a_letter_is_left_out_too(tmp_path):
    path = write(tmp_path, 0, record(0))
    with path.open("ab") as file:
        file.write('{"candidate": "ü'.encode()[:-1])
    assert [r["step"] for r in read_journal(tmp_path)] == [0]


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


def test_a_record_is_appended_in_one_write_whatever_its_length():
    """… so that two processes that append to one file cannot tear each other's lines."""

    class Writes(list):
        write = list.append

    writes, records = Writes(), [record(0), record(1, candidate="a\n" * 100_000)]
    append_json_lines(writes, records)
    assert [json.loads(line) for line in writes] == records
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in writes)


def test_datasets_loads_the_shards(tmp_path):
    import datasets

    plain = journal_record(reviewed("approved", score=float("nan")), step=0, place=0, row=1)
    attempt = Attempt("fresh", answer("good"), 1.5, "")
    journal = tmp_path / "journal"
    write(
        journal,
        0,
        plain,
        journal_record(reviewed("revised_fresh", attempt), step=0, place=1, row=2),
    )
    write(journal, 1, journal_record(reviewed("approved"), step=1, place=0, row=3))
    shards = [str(path) for path in sorted(journal.glob("*.jsonl"))]
    found = datasets.load_dataset("json", data_files=shards, cache_dir=str(tmp_path / "cache"))
    assert found["train"]["outcome"][:] == ["approved", "revised_fresh", "approved"]
    assert found["train"]["candidate_score"][:] == [None, -1.0, -1.0]
    assert found["train"][1]["attempts"][0]["text"] == "good"


@pytest.mark.parametrize(
    "damaged",
    [
        lambda line: line.replace(b"bad", b"bat"),
        lambda line: b'{"step": 1, "place"\n',
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: json.dumps(json.loads(line) | {"candidate_score": "x"}).encode() + b"\n",
    ],
)
def test_a_line_that_was_not_written_so_is_left_out_with_a_warning_or_refused(
    tmp_path, damaged, capfd
):
    path = write(tmp_path, 0, record(0), record(1), record(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damaged(lines[1]) + lines[2])
    assert [r["step"] for r in read_journal(tmp_path)] == [0, 2]
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith(f"emergent-alignment: {path}:2: ")
    with pytest.raises(UserError, match=f"{path}:2: "):
        check_journal(tmp_path)
