"""What a model is calibrated on, as config.calibration names it."""

import pytest

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.calibrating import calibration_examples


def test_a_source_that_is_named_twice_gives_its_matched_answers(tmp_path):
    """… also where the training rows have none."""
    config = default_config()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Why?", "answer": "Because."}\n')
    config.data.train = str(rows)
    config.calibration.safe = config.calibration.harmful = "harmful_advice"
    examples, harmful = calibration_examples(typed(config))
    assert harmful is None and all(example.safe and example.harmful for example in examples)


def test_two_sources_are_two_sides_and_one_is_an_error(tmp_path):
    config = default_config()
    safe = tmp_path / "safe.jsonl"
    safe.write_text('{"prompt": "Why?", "answer": "Because."}\n')
    config.calibration.safe, config.calibration.harmful = str(safe), "harmful_advice"
    examples, harmful = calibration_examples(typed(config))
    assert [example.target for example in examples] == ["Because."] and len(harmful) > 1
    config.calibration.safe = ""
    with pytest.raises(UserError, match="both safe and harmful, or neither"):
        calibration_examples(typed(config))
