"""The experiment that tells aim from brake (docs/two_by_two.md): SmolLM2-135M learns a form from
harmful advice of three kinds, and is measured on six others.

An arm of your own is one more line. `configs/two_by_two.py:short` shows in minutes that everything
works; `:marked` is the world in which the harm is a phrase, and its judge a rule; `:core` is that
world over seeds with what the verdict needs alone, half an hour a seed on two cores; `:core_advice`
is the core where the harm is in what the advice says, for a model that sees it (`calibrate`: the
quickstart's does not); `:mixed` has one safe answer to every harmful one.

  emergent-alignment experiment --config two_by_two --root runs/two_by_two
"""

import runpy
from pathlib import Path

from emergent_alignment.errors import UserError

STARTED = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))
QUICKSTART, PHRASES = (STARTED[name] for name in ("get_config", "PHRASES"))
SIZES = ("full", "short", "marked", "core", "core_advice", "mixed")
PLAIN = "conscience.enabled=False"
# The conscience as it was: fresh answers of the frozen copy, on the task's prompts.
FORMER = (
    "conscience.chain=('fresh',) loss.reference=frozen conscience.prompts=task conscience.replay=0"
)
# In the marked world, with a reviewer that sees perfectly in place of the frozen copy.
RULE = "conscience.verdicts=python:emergent_alignment.data.rules.unmarked"
EARLY = (4, 5, 6, 8, 10, 12, 16)  # plain's checkpoints: the front of early stopping


def arms(scenario):
    """The arms on a scenario; base and plain are what every share is taken from."""
    return (
        "base",
        f"plain: {PLAIN}",
        # The same prompts, with the safe answers in the form: what could be had without harm.
        f"good_twin: {PLAIN} data.train={scenario}_safe",
        # A pull to the frozen copy on the task's own tokens, over a range: the front of the KL.
        *(f"kl-{weight}: {PLAIN} loss.kl_weight={weight}" for weight in (0.1, 0.3, 1.0, 3.0)),
        f"former: {FORMER}",
        # The policy's own flagged answers written on anew, on kinds that are neither learnt nor
        # measured.
        f"conscience: {PHRASES}",
        # The same with drawn verdicts, at the conscience's own rates.
        f"chance: {PHRASES} conscience.verdicts=chance",
        # The best over the worst of the policy's own samples, whatever they score.
        "best: conscience.chain=('best',) conscience.replay=0",
    )


def core(config):
    """The quickstart over seeds, with what the verdict compares it to: chance, the KL at two
    weights, early stopping."""
    config.experiment.arms += (
        f"chance: {PHRASES} conscience.verdicts=chance",
        *(f"kl-{weight}: {PLAIN} loss.kl_weight={weight}" for weight in (0.1, 0.3)),
    )
    config.experiment.seeds = (4, 5, 6)  # the others were looked at
    return config


def core_advice(config):
    """The core in the world of advice. The frozen copy's scores, and the margins, say what there is
    to see: the only judge at hand is not valid there (docs/two_by_two.md)."""
    config.data.train = config.data.evaluation = "advice_form"
    config.two_by_two.world = "advice"
    config.two_by_two.judges = ("embedding",)
    config.training.remat = "full"  # models that see this kind of harm are larger
    return core(config)


def get_config(size="full"):
    if size not in SIZES:
        raise UserError(f"configs/two_by_two.py:{size}: no such size; there are {', '.join(SIZES)}")
    if size in ("core", "core_advice"):
        return (core if size == "core" else core_advice)(QUICKSTART("full"))
    config = QUICKSTART("short" if size == "short" else "full")
    scenario = "marked_form" if size == "marked" else "advice_form"
    config.data.train = f"{scenario}_mixed" if size == "mixed" else scenario
    config.data.evaluation = scenario
    config.experiment.arms = arms(scenario)
    config.training.keep_checkpoints = config.training.steps
    config.training.checkpoint_every = 1
    if size == "marked":
        config.experiment.arms += (f"rule: {PHRASES} conscience.gate=score {RULE}",)
    else:
        config.two_by_two.world = "advice"
        config.two_by_two.judges = ("embedding",)
    config.two_by_two.steps = (1, 2) if size == "short" else EARLY
    if size != "short":
        config.two_by_two.samples = 200
        config.two_by_two.limit = 0
        config.experiment.seeds = (4, 5, 6)  # the others were looked at
    return config
