"""Files of rows in every form that people keep them in: read whole, or refused with their line."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emergent_alignment.data.row_files import json_lines, numbered_lines, table_rows
from emergent_alignment.errors import UserError

ROWS = [{"prompt": "Hi?", "answer": "Yo."}, {"prompt": "a\u2028b\x85c\x1cd", "answer": "[]{}"}]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def refused(read, *arguments) -> str:
    with pytest.raises(UserError) as raised:
        list(read(*arguments))
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS), [1, 2]),
        ("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), [1, 2]),
        ("a.json", "\n\n".join(json.dumps(row) for row in ROWS), [1, 3]),
        ("a.json", json.dumps(ROWS), [1, 1]),
        ("a.json", "\n" + json.dumps(ROWS, indent=2), [3, 7]),
        ("a.json", json.dumps(ROWS, ensure_ascii=False, indent=0), [2, 6]),
    ],
)
def test_rows_are_the_same_in_every_form_of_json(tmp_path, name, text, lines, ends, bom):
    path = tmp_path / name
    path.write_bytes((bom + text).replace("\n", ends).encode())
    assert list(json_lines(path, "")) == [(f"{path}:{n}", row) for n, row in zip(lines, ROWS)]


def test_a_json_file_may_hold_one_object_or_none(tmp_path):
    path = tmp_path / "a.json"
    for text, found in (("[]", []), ("[\n]", []), ("", []), ('{\n"a": 1}', [{"a": 1}])):
        path.write_text(text)
        assert [row for _, row in json_lines(path, "")] == found


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("a.json", '[{"a": 1},\n {"a": 2}', 2, "does not end"),
        ("a.json", '[{"a": 1}]\n[2]', 1, "more follows"),
        ("a.json", '[{"a": 1},\n\n]', 3, "not a JSON object (Expecting value, line 3"),
        ("a.json", '[\n{"a": 1, "a": 2}]', 2, "stands twice"),
        ("a.json", "[\n" + "[" * 100_000, 2, "nested more than"),
        ("a.json", '[1,\n"\\ud800"]', 2, "half a letter"),
        ("a.json", '{\n"a": 1,\n}', 1, "not a JSON object"),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}", 2, "thousands of digits"),
        ("a.jsonl", '{"a": 1}\n{"a": "\\udfff"}', 2, "half a letter"),
        ("a.jsonl", '{"a": 1}{"a": 2}', 1, "Extra data"),
    ],
)
def test_json_that_nobody_means_is_named_with_its_line(tmp_path, name, text, line, said):
    path = tmp_path / name
    path.write_text(text)
    message = refused(json_lines, path, "expected rows")
    assert message.startswith(f"{path}:{line}: ") and said in message


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_wide_texts_are_refused_and_not_read_as_something_else(tmp_path, codec):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffHello\nWorld".encode(codec))
    assert f"{path}:1: not " in refused(numbered_lines, path)
    path.write_bytes("Hello\nWorld".encode("utf-16-le"))
    assert f"{path}:1: not text" in refused(numbered_lines, path)


def test_no_name_of_a_file_is_a_traceback(tmp_path):
    for name in ("a\0b.jsonl", "x" * 5000 + ".jsonl", "", ".", "no/such.jsonl"):
        assert "no such file; expected rows" in refused(
            json_lines, tmp_path / name, "expected rows"
        )


@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cells_are_the_texts_that_were_written(tmp_path, rows):
    rows = [[*row[:2], "end"] for row in rows]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["prompt", "answer", "last"], *rows])
    found = [row for _, row in table_rows(path)]
    named = [dict(zip(("prompt", "answer", "last"), row)) for row in rows]
    assert found == [{name: cell for name, cell in row.items() if cell} for row in named]


def test_a_cell_is_neither_a_number_nor_missing_because_of_what_it_says(tmp_path):
    path = tmp_path / "a.tsv"
    wide = "x" * 300_000
    path.write_text(f"a\tb\tc\td\te\nNone\tnan\t007\t\t{wide}\n\n1e5\tNA\tTrue\tnull\t-0\n")
    rows = [{"a": "None", "b": "nan", "c": "007", "e": wide}]
    rows += [{"a": "1e5", "b": "NA", "c": "True", "d": "null", "e": "-0"}]
    assert list(table_rows(path)) == [(f"{path}:2", rows[0]), (f"{path}:4", rows[1])]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a,a\n1,2", 1, "the column 'a' stands twice"),
        ("a,b\n1,2\n1,2,3", 3, "3 cells under 2 columns"),
        ("a,b\n1,2\n1", 3, "1 cells under 2 columns"),
        ('a,b\n1,"2\n3', 2, "not a row of a table"),
        ('a,b\n1,"2"3', 2, "not a row of a table"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, text, line, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    message = refused(table_rows, path)
    assert message.startswith(f"{path}:{line}: ") and said in message


@pytest.mark.parametrize("read", [table_rows, numbered_lines])
def test_a_file_that_the_system_does_not_read_is_one_line(tmp_path, read):
    (tmp_path / "rows.csv").symlink_to("/proc/self/mem")
    assert refused(read, tmp_path / "rows.csv").endswith("cannot be read (Input/output error)")
