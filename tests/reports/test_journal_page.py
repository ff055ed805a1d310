"""What the page of a journal holds is the journal."""

import base64
import gzip
import json
import re

import pytest

from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import UserError
from emergent_alignment.reports.journal_page import write_journal_page


def held_by(page) -> list[dict]:
    blocks = re.findall(r'class="block">([^<]*)<', page.read_text("utf-8"))
    return [row for block in blocks for row in json.loads(gzip.decompress(base64.b64decode(block)))]


def test_every_review_is_in_it_with_the_run_that_it_is_of(results_folder):
    page = write_journal_page(results_folder)
    records = read_journal(results_folder / "conscience" / "journal")
    assert page == results_folder / "journal.html" and len(records) == 200
    told = [
        {"run": "conscience"} | {k: v for k, v in record.items() if v not in (None, "", [])}
        for record in records
    ]
    assert held_by(page) == told
    assert "<script>alert" not in page.read_text("utf-8")


def test_a_run_s_own_folder_has_a_page_of_its_own(results_folder):
    page = write_journal_page(results_folder / "conscience")
    assert {row["run"] for row in held_by(page)} == {"."}


def test_a_folder_without_reviews_and_another_s_file_are_told(results_folder, tmp_path):
    with pytest.raises(UserError, match="no journal"):
        write_journal_page(results_folder / "plain")
    other = tmp_path / "mine.html"
    other.write_text("mine")
    with pytest.raises(UserError, match="not a report"):
        write_journal_page(results_folder, output=other)
