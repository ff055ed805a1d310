"""What becomes of targets that the conscience flags: kept, masked, or replaced."""

import numpy as np
import pytest
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.question import named_question
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.data.tokenized import Tokenized
from emergent_alignment.errors import UserError
from emergent_alignment.runs.step_inputs import ReviewedTargets
from emergent_alignment.settings import check_settings

APPROVED, CORRECTED, UNCORRECTED = range(3)


def targets(on_flagged: str, gate: str = "score") -> ReviewedTargets:
    """Three rows: an approved one, a flagged one with a correction, a flagged one without."""

    def record(outcome, score, chosen=None):
        journal = {"outcome": outcome, "candidate_score": score, "revision_score": 1.0}
        return {"journal": journal, "chosen": chosen, "reference": [-3.0, -4.0] if chosen else None}

    reviewed = {
        APPROVED: record("approved", 2.0),
        CORRECTED: record("revised_fresh", -1.0, [7, 8]),
        UNCORRECTED: record("dropped_disapproved", -2.0),
    }
    rows = [Tokenized([1, 2], [10 + row], False, False) for row in reviewed]
    settings = ConscienceSettings(ReviewSettings(named_question("advice")), gate=gate)
    return ReviewedTargets(settings, rows, reviewed, on_flagged)


@pytest.mark.parametrize(
    ("on_flagged", "gate", "learnt"),
    [
        ("keep", "score", [[10], [11], [12]]),
        ("mask", "score", [[10], [], []]),
        ("replace", "score", [[10], [7, 8], []]),
        # With the relative gate what cannot be bettered is not flagged.
        ("mask", "relative", [[10], [], [12]]),
        ("replace", "relative", [[10], [7, 8], [12]]),
    ],
)
def test_a_flagged_target_is_kept_masked_or_replaced(on_flagged, gate, learnt):
    found = targets(on_flagged, gate)
    assert found.learnt([APPROVED, CORRECTED, UNCORRECTED]) == learnt
    learnt_rate = found.scalars([APPROVED, CORRECTED, UNCORRECTED])["learnt_rate"]
    assert learnt_rate == np.float32(np.mean([bool(row) for row in learnt]))
    # The pair is the same whatever the task learns.
    first, pair, last = found.pairs([APPROVED, CORRECTED, UNCORRECTED])
    assert first is None and last is None
    assert (pair.chosen, pair.rejected, pair.reference) == ([7, 8], [11], (-3.0, -4.0))


@pytest.fixture
def config(model_directory, tmp_path):
    config = tiny_run_config(model_directory)
    config.data.limit = 4
    config.conscience.cache = str(tmp_path / "reviewed")
    config.training.steps = 2
    config.training.batch_size = 4
    return config


def test_both_reviews_targets_once_and_the_policy_at_every_step(config, tmp_path):
    config.conscience.candidate = "both"
    finetune(typed(config), tmp_path / "run")
    journal = read_journal(tmp_path / "run" / "journal")
    assert len(journal) == config.data.limit + config.training.steps * config.training.batch_size


def test_only_reviewed_targets_can_be_masked(config):
    config.conscience.on_flagged = "mask"
    with pytest.raises(UserError, match="on_flagged.*candidate to target or both"):
        check_settings(typed(config))
    config.conscience.candidate = "target"
    check_settings(typed(config))
