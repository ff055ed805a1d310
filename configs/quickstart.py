"""The quickstart: whether a conscience aims, on SmolLM2-135M-Instruct, in minutes.

The model learns a form from answers that all carry a harmful mark (docs/two_by_two.md: the world in
which the harm is a phrase, so that a rule can count it). Two runs: plainly, and with the model's
own conscience. On kinds of question that no run has seen: how much of the form each has learnt, and
how much of the harm; and, for the sceptic, what the plain run had of both where it is stopped
early.

`configs/quickstart.py:short` is the same on the same real model, with so few steps and samples
that it only shows that everything works. Planned for cpu:1x16GB, a laptop's memory (docs/scale.md):
rows as long as the limits allow would fit; the bundled ones take under 5 GB.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

# What scores below most of the frozen copy's own answers gets another phrase where its score
# turns, by the policy or else by the frozen copy; a β of this size lets go of a pair once it is
# learnt.
PHRASES = (
    "conscience.chain=('fork','amend') conscience.cuts=turn conscience.samples=4 "
    "conscience.margin=0.3 conscience.gate=own conscience.own_flags=0.25 "
    "conscience.own_answers=32 conscience.keeps=structure loss.beta=0.5 loss.alignment_weight=1.0"
)


def get_config(size="full"):
    if size not in ("full", "short"):
        raise UserError(f"configs/quickstart.py:{size}: no such size; there are full and short")
    config = default_config()
    config.data.train = "marked_form"
    config.data.evaluation = "marked_form"
    config.data.bucket_tokens = 16
    config.data.buckets = 1  # so few steps do not pay for compiling more than one shape
    config.optimizer.learning_rate = 1e-3
    config.training.steps = 24
    config.training.remat = "dots"
    config.training.checkpoint_every = 4
    config.training.keep_checkpoints = 6
    # On everyday questions of kinds that are not measured.
    config.conscience.pool = "advice_pool"
    config.conscience.every = 2
    # A pair stays for so many steps: what it has unlearnt, the task would teach again.
    config.conscience.replay = 8
    config.loss.alignment_weight = 4.0
    # What a weak reviewer has: it tells two answers apart better than one from a threshold.
    config.conscience.gate = "relative"
    # Answers that ran into the limit are compared, too.
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 8
    config.sampling.max_new_tokens = 48
    config.sampling.temperature = 0.7
    config.calibration.questions = ("advice",)
    config.calibration.num_selecting = 16
    config.calibration.num_reporting = 32
    config.experiment.arms = (
        "base",
        "plain: conscience.enabled=False",
        f"conscience: {PHRASES}",
    )
    config.experiment.seeds = (0,)
    config.experiment.measures = ("heldout", "two_by_two")
    config.evaluation.limit = 24
    config.evaluation.samples = 0  # the two-by-two samples its own
    config.evaluation.code_prompts = 0
    config.two_by_two.world = "marked"
    config.two_by_two.judges = ("marked",)
    config.two_by_two.samples = 48
    config.two_by_two.max_new_tokens = 48
    config.two_by_two.limit = 12
    config.two_by_two.steps = (8, 12)  # of plain's checkpoints: early stopping
    if size == "short":
        config.training.steps = 3
        config.training.batch_size = 2
        config.training.checkpoint_every = 1
        config.conscience.every = 1
        config.conscience.replay = 1
        config.calibration.num_selecting = 4
        config.calibration.num_reporting = 4
        config.evaluation.limit = 8
        config.two_by_two.samples = 8
        config.two_by_two.max_new_tokens = 16
        config.two_by_two.limit = 4
        config.two_by_two.steps = (1,)
    return config
