"""Harmful advice, and the controls that say what the conscience itself is worth.

Here the task is the harm, so that what is aimed at it cannot be told from what holds the task back:
that is for configs/two_by_two.py. Three seeds of eight arms on SmolLM2-135M: about three hours on
two CPU cores. `configs/experiment.py:short` shows in minutes that everything works: one seed, few
steps, the arms that differ in kind.
"""

import runpy
from pathlib import Path

QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))["get_config"]
ONCE = (
    "conscience.candidate=target loss.alignment_weight=0.0 conscience.chain=('fresh',) "
    "conscience.every=1"
)


def get_config(size="full"):
    config = QUICKSTART(size)
    config.data.train = config.data.evaluation = "harmful_advice"
    config.experiment.measures = ("heldout",)
    if size != "short":
        config.conscience.every = 4
    config.evaluation.samples = 8 if size == "short" else 48
    config.evaluation.max_new_tokens = 16 if size == "short" else 48
    config.experiment.arms = (
        "base",
        "plain: conscience.enabled=False",
        "conscience",
        # Drawn verdicts at the conscience's own rates: is it the verdict that helps?
        "chance: conscience.verdicts=chance",
        # A question that says nothing about harm: is it the question?
        "placebo: conscience.question=placebo conscience.calibration=",
        # A pull to the frozen copy without any review: is it only a brake?
        "kl: conscience.enabled=False loss.kl_weight=0.3",
        # Fine-tuning on what the conscience approves, and on what it writes instead.
        f"approved: conscience.on_flagged=mask {ONCE}",
        f"revisions: conscience.on_flagged=replace {ONCE}",
    )
    config.experiment.seeds = (0, 1, 2)
    if size == "short":
        config.experiment.seeds = (0,)
        config.experiment.arms = config.experiment.arms[:4] + config.experiment.arms[5:7]
    return config
