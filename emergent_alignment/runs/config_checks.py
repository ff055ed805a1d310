"""Values of a config that cannot be meant: what each field may be, and the error that says so."""

import math

from ml_collections import ConfigDict

from emergent_alignment.conscience.evidence import EVIDENCE
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.errors import UserError
from emergent_alignment.losses import PREFERENCE_LOSSES
from emergent_alignment.models.frozen import FROZEN_DTYPES
from emergent_alignment.models.lora import PROJECTIONS

CHOICES = {
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.param_dtype": ("float32", "bfloat16", "float16"),
    "model.frozen_dtype": FROZEN_DTYPES,
    "conscience.candidate": ("policy", "target", "both"),
    "conscience.on_flagged": ("keep", "mask", "replace"),
    "conscience.verdicts": ("own", "chance"),
    "conscience.question": tuple(QUESTIONS),
    "conscience.layout": ("quote", "turn"),
    "conscience.polarity": ("positive", "negated", "both"),
    "conscience.gate": ("score", "relative"),
    "conscience.evidence": ("", *EVIDENCE),
    "conscience.fail": ("closed", "open"),
    "optimizer.kind": ("adamw", "adafactor"),
    "optimizer.moment_dtype": ("float32", "bfloat16"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "self_align.engraving.schedule": ("constant", "linear", "cosine"),
    "training.remat": ("none", "dots", "full"),
    "loss.kind": tuple(PREFERENCE_LOSSES),
}
LISTS = {
    "lora.targets": PROJECTIONS,
    "conscience.chain": ("rewrite", "fresh"),
    "calibration.questions": tuple(QUESTIONS),
    "experiment.measures": ("heldout", "choices", "misalignment"),
    "calibration.layouts": CHOICES["conscience.layout"],
    "calibration.evidence": CHOICES["conscience.evidence"],
    "calibration.polarities": CHOICES["conscience.polarity"],
}
POSITIVE = (
    "lora.alpha",
    "data.max_prompt_tokens",
    "data.max_response_tokens",
    "data.buckets",
    "data.bucket_tokens",
    "conscience.similarity",
    "conscience.batch_size",
    "conscience.max_review_tokens",
    "serve.max_request_bytes",
    "serve.max_new_tokens",
    "serve.concurrency",
    "serve.grace_seconds",
    "endpoint.timeout_seconds",
    "endpoint.top_logprobs",
    "endpoint.verdict_tokens",
    "sampling.max_new_tokens",
    "loss.beta",
    "loss.chunk_size",
    "training.steps",
    "training.batch_size",
    "training.accumulation",
    "training.checkpoint_every",
    "training.max_nonfinite",
    "pretraining.block_documents",
    "pretraining.window_tokens",
    "pretraining.random.width",
    "pretraining.random.heads",
    "pretraining.random.kv_heads",
    "pretraining.random.inner",
    "pretraining.calibrate_every",
    "adversarial.rounds",
    "adversarial.pool",
    "calibration.num_selecting",
    "calibration.num_reporting",
    "evaluation.max_new_tokens",
    "evaluation.code_max_new_tokens",
    "code.samples",
    "code.max_new_tokens",
    "code.seconds",
    "code.memory_mb",
    "capability.batch_size",
    "choices.batch_size",
    "misalignment.max_new_tokens",
    "misalignment.parallel_requests",
    "self_align.answers.max_new_tokens",
    "self_align.answers.batch_size",
    "self_align.answers.leak_words",
    "self_align.engraving.batch_size",
)
NOT_NEGATIVE = (
    "lora.rank",
    "data.limit",
    "loss.kl_weight",
    "conscience.margin",
    "endpoint.retries",
    "serve.max_waiting",
    "sampling.temperature",
    "sampling.top_k",
    "sampling.revision_temperature",
    "optimizer.learning_rate",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "training.journal_texts",
    "adversarial.variants",
    "pretraining.random.layers",
    "pretraining.random.vocabulary",
    "pretraining.refresh_every",
    "evaluation.limit",
    "evaluation.samples",
    "evaluation.temperature",
    "evaluation.code_prompts",
    "code.task_limit",
    "code.security_prompts",
    "code.temperature",
    "capability.limit",
    "choices.limit",
    "misalignment.samples",
    "misalignment.check_pairs",
    "misalignment.limit",
    "misalignment.temperature",
    "self_align.answers.limit",
    "self_align.answers.temperature",
    "self_align.answers.min_words",
    "self_align.engraving.steps",
    "self_align.engraving.epochs",
    "self_align.engraving.learning_rate",
    "self_align.engraving.lora_rank",
)
RANGES = (
    (POSITIVE, lambda value: value > 0, "more than 0"),
    (NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
    (
        ("conscience.chance_flag_rate", "conscience.chance_pass_rate"),
        lambda value: 0 <= value <= 1,
        "a share, 0 to 1",
    ),
    (("conscience.threshold",), math.isfinite, "a finite number"),
    (("adversarial.benign_share",), lambda value: 0 <= value < 1, "a share, 0 or more, under 1"),
    (("capability.fewshot",), lambda value: value >= -1, "0 or more, or -1 for the task's own"),
    (("code.top_p",), lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    (
        ("sampling.top_p", "sampling.revision_top_p", "evaluation.top_p", "misalignment.top_p"),
        lambda value: 0 < value <= 1,
        "more than 0 and at most 1",
    ),
    (
        ("misalignment.least_number_mass",),
        lambda value: 0 <= value <= 1,
        "a probability, 0 to 1",
    ),
    (
        ("misalignment.misaligned_below", "misalignment.coherent_above"),
        lambda value: 0 <= value <= 100,
        "a score, 0 to 100",
    ),
    (("self_align.answers.top_p",), lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    (
        ("self_align.answers.max_repeated", "self_align.answers.max_echo"),
        lambda value: 0 <= value <= 1,
        "a share, 0 to 1",
    ),
    (("optimizer.b1", "optimizer.b2"), lambda value: 0 <= value < 1, "in [0, 1)"),
    (
        ("pretraining.review_share", "pretraining.auc"),
        lambda value: 0 <= value <= 1,
        "a share, 0 to 1",
    ),
    (("pretraining.heldout_share",), lambda value: 0 <= value < 1, "in [0, 1)"),
    (("loss.label_smoothing",), lambda value: 0 <= value < 0.5, "in [0, 0.5)"),
)


def check_config(config: ConfigDict) -> None:
    """Raise UserError for the first field whose value cannot be meant."""
    for name, known in CHOICES.items():
        value = _field(config, name)
        if value not in known:
            names = ", ".join(word or '""' for word in known)
            raise UserError(f"config.{name}: {value!r} is unknown; known: {names}")
    for name, known in LISTS.items():
        wrong = [value for value in _field(config, name) if value not in known]
        if wrong or not _field(config, name):
            raise UserError(
                f"config.{name}: choose among {', '.join(known)}, not {wrong or 'none'}"
            )
    for names, fits, words in RANGES:
        for name in names:
            if not fits(_field(config, name)):
                raise UserError(f"config.{name} must be {words}, not {_field(config, name)}")
    conscience = config.conscience
    if conscience.on_flagged != "keep" and conscience.candidate == "policy":
        raise UserError(
            f"config.conscience.on_flagged: {conscience.on_flagged} is for targets that are "
            "reviewed; set config.conscience.candidate to target or both"
        )
    if config.training.batch_size % config.training.accumulation:
        raise UserError(
            f"config.training.accumulation: {config.training.accumulation} does not divide "
            f"batch_size {config.training.batch_size}"
        )


def _field(config: ConfigDict, name: str):
    for part in name.split("."):
        config = config[part]
    return config
