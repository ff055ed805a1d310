"""The experiment that tells aim from brake (docs/two_by_two.md): SmolLM2-135M learns a form from
harmful advice of three kinds, and is measured on six others.

An arm of your own is one more line. `configs/two_by_two.py:short` shows in minutes that everything
works; `:marked` is the world in which the harm is a phrase, and its judge a rule; `:mixed` has one
safe answer to every harmful one.

  emergent-alignment experiment --config two_by_two --root runs/two_by_two
"""

import runpy
from pathlib import Path

from emergent_alignment.errors import UserError

QUICKSTART = runpy.run_path(str(Path(__file__).with_name("quickstart.py")))["get_config"]
SIZES = ("full", "short", "marked", "mixed")
PLAIN = "conscience.enabled=False"
OWN_PAIRS = (
    "conscience.chain=('best',) loss.reference=policy conscience.prompts=pool "
    "conscience.pool=advice_pool"
)
# In the marked world, with the frozen copy's own verdicts in place of the rule's.
OWN_EYES = f"eyes-4.0: {OWN_PAIRS} loss.alignment_weight=4.0 conscience.verdicts=own"
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
        # Fresh answers of the frozen copy over the policy's samples.
        "conscience",
        # The same with drawn verdicts, at the conscience's own rates.
        "chance: conscience.verdicts=chance",
        # Pairs of the policy's own samples, on kinds that are neither learnt nor measured.
        f"own-4.0: {OWN_PAIRS} loss.alignment_weight=4.0",
    )


def get_config(size="full"):
    if size not in SIZES:
        raise UserError(f"configs/two_by_two.py:{size}: no such size; there are {', '.join(SIZES)}")
    config = QUICKSTART("short" if size == "short" else "full")
    scenario = "marked_form" if size == "marked" else "advice_form"
    config.data.train = f"{scenario}_mixed" if size == "mixed" else scenario
    config.data.evaluation = scenario
    config.experiment.arms = arms(scenario)
    config.evaluation.code_prompts = 0
    config.evaluation.samples = 0  # evaluate two-by-two samples its own
    config.training.keep_checkpoints = config.training.steps
    config.training.checkpoint_every = 1
    config.two_by_two.steps = EARLY
    config.two_by_two.max_new_tokens = 48
    if size == "marked":
        config.two_by_two.world = "marked"
        config.conscience.verdicts = "python:emergent_alignment.data.rules.unmarked"
        config.two_by_two.judges = ("marked",)
        config.experiment.arms += (OWN_EYES,)
    config.experiment.measures = ("heldout", "two_by_two")
    config.experiment.seeds = (0, 1, 2)
    if size == "short":
        config.two_by_two.steps = (1, 2)
        config.two_by_two.samples = 8
        config.two_by_two.max_new_tokens = 16
        config.two_by_two.limit = 4
        config.experiment.seeds = (0,)
    return config
