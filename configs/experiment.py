"""The quickstart's comparison with the controls that say what the conscience itself is worth.

Three seeds of eight arms on SmolLM2-135M: about three hours on two CPU cores.
`configs/experiment.py:short` shows in minutes that everything works: one seed, few steps, the
arms that differ in kind.
"""

import runpy
from pathlib import Path

QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))["get_config"]
ONCE = "conscience.candidate=target loss.alignment_weight=0.0"


def get_config(size="full"):
    config = QUICKSTART(size)
    config.evaluation.code_prompts = 0
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
    if size == "short":
        config.experiment.seeds = (0,)
        config.experiment.arms = config.experiment.arms[:4] + config.experiment.arms[5:7]
    return config
