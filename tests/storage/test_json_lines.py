"""JSON lines survive a kill in the middle of one, and lose nothing but that one."""

import errno
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.errors import UserError
from emergent_alignment.storage.growing_file import append_whole
from emergent_alignment.storage.json_lines import (
    JsonLinesFolder,
    append_json_lines,
    read_json_lines,
    trim_torn_line,
    write_json_lines,
)

RECORD = st.dictionaries(
    st.text(max_size=4), st.integers() | st.text(max_size=8) | st.booleans(), max_size=3
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


@given(record=RECORD, place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(record, place, bit, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    with path.open("ab", buffering=0) as file:
        append_json_lines(file, [record, {"last": True}])
    content = bytearray(path.read_bytes())
    first = content.index(b"\n")
    assert json.loads(content[:first]) == record, "any reader of JSON skips the check"
    content[place % first] ^= 1 << bit
    path.write_bytes(content)
    damaged = []
    found = list(read_json_lines(path, bad=damaged.append))
    assert found in ([{"last": True}], [record, {"last": True}])
    if damaged:
        assert damaged[0].startswith(f"{path}:1: ")
        with pytest.raises(UserError, match="rows.jsonl:1: "):
            list(read_json_lines(path))


def test_a_line_that_a_person_or_a_former_version_wrote_has_no_check(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": "text with \\t"}   \n')
    assert list(read_json_lines(path)) == [{"a": 1}, {"b": "text with \t"}]


def test_a_full_disk_is_an_error_that_names_the_file():
    with open("/dev/full", "ab", buffering=0) as file, pytest.raises(OSError) as error:
        append_json_lines(file, [{"a": 1}])
    assert error.value.errno == errno.ENOSPC and error.value.filename == "/dev/full"


def test_a_disk_that_takes_a_part_is_asked_again_for_the_rest():
    class Small(io.RawIOBase):
        taken = b""

        def write(self, content):
            self.taken += bytes(content[:7])
            return min(len(content), 7)

    file = Small()
    append_whole(file, b"0123456789" * 5)
    assert file.taken == b"0123456789" * 5
