"""A source that is streamed is read no further than a run needs, and comes the same each time."""

import json

import pytest

from emergent_alignment.config import Config
from emergent_alignment.data.sources import Stream, load_examples, load_pairs
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import examples_digest, given_pairs, training_examples
from emergent_alignment.settings import changed, check_settings

ROWS = [{"prompt": f"Question {i}?", "answer": f"Answer {i}."} for i in range(20)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What is fetched lands in the test's folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path):
    """A folder that `datasets` loads by its name: two files of ten rows, and one that is broken."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for part in range(2):
        rows = "".join(json.dumps(row) + "\n" for row in ROWS[10 * part : 10 * part + 10])
        (folder / f"train-{part}.jsonl").write_text(rows)
    (folder / "train-9.jsonl").write_text('{"prompt": [')
    return str(folder)


def config_of(source: str, **changes):
    settings = {"data.train": source, "data.stream": True, "training.batch_size": 3}
    return changed(Config(), settings | {"training.steps": 4} | changes)


def targets(examples):
    return [example.target for example in examples]


def test_no_more_is_read_than_a_run_takes(shards):
    examples = training_examples(config_of(shards))
    assert targets(examples) == [row["answer"] for row in ROWS[:12]]
    assert len(training_examples(config_of(shards, **{"data.limit": 5}))) == 5
    with pytest.raises(UserError, match="shards"):
        training_examples(config_of(shards, **{"data.stream": False}))
    with pytest.raises(UserError, match="shards"):
        training_examples(config_of(shards, **{"training.steps": 40}))


def test_a_stream_that_ends_early_gives_what_it_has(shards, tmp_path):
    (tmp_path / "shards" / "train-9.jsonl").unlink()
    assert len(training_examples(config_of(shards, **{"training.steps": 40}))) == 20


def test_a_shuffled_stream_is_a_function_of_the_seed(shards, tmp_path):
    (tmp_path / "shards" / "train-9.jsonl").unlink()

    def read(seed):
        return training_examples(config_of(shards, **{"data.stream_buffer": 8, "seed": seed}))

    assert examples_digest(read(1)) == examples_digest(read(1)) != examples_digest(read(2))
    assert set(targets(read(1))) <= {row["answer"] for row in ROWS}
    assert len(set(targets(read(1)))) == 12


def test_pairs_and_parts_of_mixtures_are_streamed_by_their_share(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    pairs = [{"prompt": "Hm?", "chosen": f"Yes {i}.", "rejected": "No."} for i in range(9)]
    (folder / "train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert len(load_pairs(str(folder), stream=Stream(4)).examples) == 4
    config = config_of("", **{"data.preferences": str(folder), "data.preference_rows": 1})
    assert len(given_pairs(config).examples) == 4
    mixed = config_of(f"0.25*{folder} + 0.75*harmful_advice")
    assert sum("Yes" in target for target in targets(training_examples(mixed))) == 3


def test_a_buffer_without_a_stream_is_refused():
    config = config_of("rows", **{"data.stream": False, "data.stream_buffer": 5})
    with pytest.raises(UserError, match="config.data.stream_buffer: there is no stream"):
        check_settings(config)


def test_a_file_is_read_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(load_examples(str(path), stream=Stream(3))) == 20
