"""Where raw text comes from: an order that never changes, any place to go on from, and mistakes."""

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from emergent_alignment.applications.pretraining import corpus as corpora
from emergent_alignment.applications.pretraining.corpus import open_corpus
from emergent_alignment.errors import UserError

TEXTS = [f"text {number}" for number in range(23)]


def write_parquet(path, texts, column="text"):
    table = pyarrow.table({column: texts, "other": list(range(len(texts)))})
    pyarrow.parquet.write_table(table, path, row_group_size=4)
    return path


def text_folder(folder):
    for number, text in enumerate(TEXTS):
        (folder / f"{number:02}.txt").write_text(text)
    (folder / ".hidden").write_text("not this")
    return folder


def parquet_folder(folder):
    write_parquet(folder / "a.parquet", TEXTS[:10])
    write_parquet(folder / "b.parquet", TEXTS[10:])
    return folder


@pytest.fixture(params=["text", "parquet", "streamed"])
def corpus(request, tmp_path, monkeypatch):
    if request.param == "text":
        return open_corpus(str(text_folder(tmp_path)))
    if request.param == "parquet":
        return open_corpus(str(parquet_folder(tmp_path)))
    rows = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(num_shards=3)
    monkeypatch.setattr(corpora, "_streamed", lambda source, split: rows)
    return open_corpus("somebody/texts")


def texts_of(corpus, first=0):
    return [document.text for document in corpus.documents(first)]


@pytest.mark.parametrize("first", [0, 1, 4, 9, 10, 13, 22, 23, 40])
def test_documents_go_on_from_any_place(corpus, first):
    assert texts_of(corpus) == TEXTS
    assert texts_of(corpus, first) == TEXTS[first:]


def test_a_limit_keeps_the_first_documents(tmp_path):
    limited = open_corpus(str(text_folder(tmp_path)), limit=5)
    assert texts_of(limited) == TEXTS[:5] and texts_of(limited, 3) == TEXTS[3:5]
    assert limited.identity != open_corpus(str(tmp_path)).identity


def test_identity_is_of_the_files_and_not_of_where_they_stand(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        text_folder(folder)
    first, second = (open_corpus(str(folder)).identity for folder in folders)
    assert first == second
    (folders[1] / "zz.txt").write_text("more")
    assert open_corpus(str(folders[1])).identity != first


def test_the_standard_library_is_source_without_tests():
    corpus = open_corpus("standard_library")
    names = [path.as_posix() for path in corpus.paths]
    assert names == sorted(names) and len(names) > 300
    assert any(name.endswith("json/decoder.py") for name in names)
    assert not any(
        "/test/" in name or "/tests/" in name or "site-packages" in name for name in names
    )
    assert "JSON" in next(d.text for d in corpus.documents() if d.name.endswith("json/decoder.py"))


def mistakes(folder):
    (folder / "bytes.txt").write_bytes(b"caf\xe9")
    (folder / "zeros.txt").write_bytes(b"a\0b")
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "empty").mkdir()
    (folder / "mixed").mkdir()
    (folder / "mixed" / "a.txt").write_text("a")
    write_parquet(folder / "mixed" / "b.parquet", ["b"])
    write_parquet(folder / "named.parquet", ["a"], column="body")
    write_parquet(folder / "numbers.parquet", [1, 2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bytes.txt", r"bytes\.txt: not UTF-8 text \(byte 3\)"),
        ("zeros.txt", r"zeros\.txt: not text"),
        ("broken.parquet", r"broken\.parquet: not a parquet file"),
        ("rows.jsonl", "write it as .parquet"),
        ("empty", "there are no files in it"),
        ("mixed", r"it holds parquet and other files \(a\.txt\)"),
        ("named.parquet", "there is no column 'text', only body, other"),
        ("numbers.parquet", r"row 0: the column 'text' holds int, not text"),
        ("nowhere.txt", "no such file or folder"),
    ],
)
def test_a_corpus_that_cannot_be_meant_is_an_error_that_names_it(tmp_path, name, message):
    mistakes(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        list(open_corpus(str(tmp_path / name)).documents())
    assert "\n" not in str(error.value)


def test_a_stream_without_the_column_or_that_breaks_off_is_an_error(monkeypatch):
    rows = datasets.Dataset.from_dict({"body": ["a"]}).to_iterable_dataset()
    monkeypatch.setattr(corpora, "_streamed", lambda source, split: rows)
    with pytest.raises(UserError, match="there is no column 'text', only body"):
        open_corpus("somebody/texts")

    class Breaking:
        def __iter__(self):
            yield {"text": "a"}
            raise ConnectionError("reset by peer")

    monkeypatch.setattr(corpora, "_streamed", lambda source, split: Breaking())
    broken = open_corpus("somebody/texts")
    with pytest.raises(UserError, match="the stream broke off .reset by peer."):
        list(broken.documents())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.tsv"])
def test_files_of_rows_are_no_texts(tmp_path, name):
    (tmp_path / name).write_text('{"text": "One."}\n')
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(UserError, match="rows of a corpus are read from parquet"):
            open_corpus(str(source))
