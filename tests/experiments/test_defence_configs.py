"""The experiments of configs/: every arm can be meant, and what it comes to can be measured."""

from pathlib import Path

import pytest

from emergent_alignment.cli.configuration import read_config, with_changes
from emergent_alignment.experiments.plan import planned
from emergent_alignment.experiments.two_by_two import check_two_by_two
from emergent_alignment.settings import changed

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["two_by_two.py", "defences.py"])
@pytest.mark.parametrize("size", ["", ":short", ":marked", ":mixed"])
def test_every_arm_can_be_meant_and_measured(name, size):
    config = read_config([f"--config={CONFIGS / name}{size}"])
    for words in planned(config.experiment).arms.values():
        with_changes(config, [f"--config.{word}" for word in words])
    # The encoder of the other judge is an extra.
    check_two_by_two(changed(config, {"two_by_two.judges": ("marked",)}))
