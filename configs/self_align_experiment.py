"""Principle engraving with the conscience's pairs in the same step, beside plain engraving.

Both learn the answers that stage 2 of a SELF-ALIGN work directory has kept; the second also has the
conscience's pairs over what the policy itself answers. Run stages 1 and 2 first, then

  emergent-alignment experiment --config self_align_experiment:runs/aligned \\
      --root runs/aligned_experiment

`:DIR` names the work directory. What is compared: held-out matched answers, and multiple choice.
"""

import runpy
from pathlib import Path

from emergent_alignment.cli.config_files import as_config_dict, typed
from emergent_alignment.self_align.engraving import training_config
from emergent_alignment.self_align.stages import stage_folder

QUICKSTART = runpy.run_path(str(Path(__file__).with_name("self_align_quickstart.py")))["get_config"]


def get_config(workdir="runs/aligned"):
    config = QUICKSTART()
    answers = stage_folder(Path(workdir), 2)
    rows = sum(1 for _ in answers.data.open("rb")) if answers.data.is_file() else 1
    # As stage 3 would train on them; the arms differ in the conscience alone.
    config = as_config_dict(training_config(typed(config), str(answers.data), rows))
    config.conscience.enabled = True
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 8
    config.sampling.max_new_tokens = 48
    # The rows have no harmful side: the conscience is calibrated on the bundled matched answers.
    config.calibration.safe = config.calibration.harmful = "harmful_advice"
    config.calibration.questions = ("advice", "careful", "ethical")
    config.calibration.num_selecting = 32
    config.calibration.num_reporting = 64
    config.evaluation.samples = 48
    config.evaluation.max_new_tokens = 48
    config.experiment.arms = ("base", "engraved: conscience.enabled=False", "engraved_conscience")
    config.experiment.measures = ("heldout", "choices")
    return config
