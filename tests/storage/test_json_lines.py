"""JSON lines survive a kill in the middle of one, and lose nothing but that one."""

import json

from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.storage.json_lines import (
    JsonLinesFolder,
    append_json_lines,
    read_json_lines,
    trim_torn_line,
    write_json_lines,
)

RECORDS = [{"text": "äöü\n ✓", "number": 1.5}, {}, {"list": [1, None, "\u2028"]}]


@given(cut=st.integers(0, 200))
def test_cut_anywhere_the_whole_lines_before_are_read_and_the_rest_is_written_again(
    cut, tmp_path_factory
):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    write_json_lines(path, RECORDS, ensure_ascii=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    survived = whole[:cut].count(b"\n")
    assert list(read_json_lines(path)) == RECORDS[:survived]
    trim_torn_line(path)
    with path.open("ab", buffering=0) as file:
        append_json_lines(file, RECORDS[survived:])
    assert list(read_json_lines(path)) == RECORDS


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert not list(JsonLinesFolder(tmp_path).records("answers"))


def test_records_that_cannot_be_written_leave_the_former_file(tmp_path):
    path = JsonLinesFolder(tmp_path).part_file("answers")
    write_json_lines(path, RECORDS)

    def failing():
        yield {"one": 1}
        raise RuntimeError

    try:
        write_json_lines(path, failing())
    except RuntimeError:
        assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS
    assert list(JsonLinesFolder(tmp_path).records("answers")) == RECORDS
    assert list(tmp_path.iterdir()) == [path]
