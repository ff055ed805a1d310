"""The benchmarks' helpers, and the memory benchmark at a tiny size. No time is asserted."""

import importlib
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    """The benchmarks are scripts that import each other by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def tables():
    return importlib.import_module("tables")


def test_ratio_is_the_median_over_pairs_not_the_ratio_of_medians():
    # The machine was slow in the second turn: both sides took three times as long.
    ratio = tables().ratio_of_pairs([1.0, 3.0, 1.0], [2.0, 9.0, 4.0])
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.0, 4.0)
    assert str(ratio) == "3.00× (2.00–4.00)"


@pytest.mark.parametrize("ours, peer", [([], []), ([1.0], [1.0, 2.0])])
def test_ratio_of_runs_without_partners_is_an_error(ours, peer):
    with pytest.raises(ValueError, match="pairs of runs"):
        tables().ratio_of_pairs(ours, peer)


def test_texts_have_units_and_the_spread():
    assert tables().seconds_text([1.0, 30.0, 2.0]) == "2 s (1–30)"
    assert tables().bytes_text(11.29e9) == "11.3 GB"
    assert tables().bytes_text(84_000_000) == "84 MB"
    assert tables().bytes_text(12) == "12 B"


def test_largest_difference_looks_at_every_compared_step_and_no_further():
    ours = [{"loss": 1.0}, {"loss": 2.0}, {"loss": 9.0}]
    peer = [{"dpo": 1.1}, {"dpo": 2.5}, {"dpo": 0.0}]
    assert tables().largest_difference(ours, peer, ("loss", "dpo"), 2) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="4 steps"):
        tables().largest_difference(ours, peer, ("loss", "dpo"), 4)


def test_a_row_measured_again_takes_the_place_of_the_older_one(tmp_path):
    first = [{"peer": "trl", "mode": "full", "x": 1}, {"peer": "trl", "mode": "lora", "x": 2}]
    tables().keep_rows("steps", first, ("peer", "mode"), tmp_path)
    again = [{"peer": "trl", "mode": "full", "x": 3}]
    path = tables().keep_rows("steps", again, ("peer", "mode"), tmp_path)
    kept = {row["mode"]: row["x"] for row in json.loads(path.read_text("utf-8"))}
    assert kept == {"lora": 2, "full": 3}


def test_a_worker_reports_what_it_computed_and_how_it_failed(tmp_path):
    workers = importlib.import_module("workers")
    script = tmp_path / "worker.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from worker_protocol import serve\n"
        "def prepare(settings):\n"
        "    print('noise of a library')\n"
        "    return lambda order: {'sum': settings['a'] + order['b']}\n"
        "serve(prepare)\n",
        "utf-8",
    )
    with workers.Worker("adder", sys.executable, str(script), {"a": 40}) as worker:
        answer = worker.step(b=2)
        assert answer.result == {"sum": 42}
        assert answer.seconds >= 0 and answer.peak_bytes > 1_000_000
        with pytest.raises(workers.WorkerFailed, match="adder: KeyError: 'b'"):
            worker.step()


@pytest.mark.parametrize("patience, kept", [(60, [3, 1]), (0, [1, 0])])
def test_turns_are_kept_by_what_others_did_in_them(monkeypatch, patience, kept):
    turns = importlib.import_module("turns")
    shares, numbers = iter([0.5, 0.02, 0.3, 0.01]), itertools.count()

    class Shares:
        def __init__(self, measured):
            self.share = lambda: next(shares)

    monkeypatch.setattr(turns, "OthersShare", Shares)
    monkeypatch.setattr(turns, "wait_until_quiet", lambda measured, until: None)
    found = turns.quiet_turns(lambda: next(numbers), [], 2, patience)
    assert [number for number, _ in found] == kept


def test_greedy_answers_may_part_at_a_tie_alone():
    sampling = importlib.import_module("sampling")
    ours = {"tokens": [[1, 2, 3]], "log_probs": [[-1.0, -2.0, -3.0]]}
    tied = {"tokens": [[1, 5, 9]], "log_probs": [[-1.0, -2.0004, -9.0]]}
    assert sampling.compare_greedy(ours, tied).startswith("0 of 1 rows")
    other = {"tokens": [[1, 5, 9]], "log_probs": [[-1.0, -2.3, -3.0]]}
    with pytest.raises(SystemExit, match="log-probs up to 0.3 apart"):
        sampling.compare_greedy(ours, other)


@pytest.fixture(scope="module")
def memory_forms():
    memory = importlib.import_module("memory")
    # A vocabulary that dwarfs the two layers, so that the logits are what is measured.
    return memory, replace(memory.tiny_model().config, vocab_size=4096)


def test_both_forms_of_the_memory_benchmark_compute_the_same(memory_forms):
    memory, config = memory_forms
    assert memory.difference(config, None) < memory.TOLERANCE


def test_our_step_needs_less_memory_than_separate_rows_with_full_logits(memory_forms):
    memory, config = memory_forms
    batch = memory.random_batch(config, 1, 384, 128)

    def temporary_bytes(rows, chunk_size):
        settings = memory.StepSettings(config, None, remat="full", chunk_size=chunk_size)
        return memory.step_memory(rows, settings, batch)["temporary_bytes"]

    ours, usual = temporary_bytes(memory.SHARED, 64), temporary_bytes(memory.SEPARATE, None)
    assert ours < 0.5 * usual, f"ours {ours:,} bytes, separate rows {usual:,}"
