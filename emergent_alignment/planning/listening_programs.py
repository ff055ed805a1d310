"""What a round of listening runs beside the training step, for shapes alone: the policy answers,
the frozen copy reviews, corrects and gives log-probs; each in the largest shape that the config
allows.
"""

import jax.numpy as jnp
import numpy as np

from emergent_alignment.conscience.reader import WIDTH_STEP
from emergent_alignment.conscience.review import WORD_TOKENS_STEP, word_margins
from emergent_alignment.conscience.revise import FROZEN_LINKS
from emergent_alignment.data.batches import bucket
from emergent_alignment.generation.prefill import Prompts, answer_log_probs, prefill
from emergent_alignment.generation.sampler import Sampler, decode, sampler_settings, stages
from emergent_alignment.models import ideal
from emergent_alignment.planning.programs import Held, Program, filled, policy_arguments
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import conscience_settings
from emergent_alignment.runs.listening_inputs import heard_size


def listening_programs(run: Held) -> list[Program]:
    """All of them."""
    made = [prefill_program(run), decode_program(run), review_program(run)]
    if set(FROZEN_LINKS) & set(conscience_settings(run.config).chain):
        made.append(correction_program(run))
    return [*made, reference_program(run)]


def prefill_program(run: Held) -> Program:
    """Reading the prompts that the policy is to answer."""
    rows, width = sampled_rows(run), run.config.data.max_prompt_tokens
    return Program(
        "prefill",
        f"{rows} prompts of {width} tokens",
        lambda: prefill.lower(
            run.model,
            run.policy,
            run.rows((rows, width)),
            run.rows((rows,)),
            None,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows, 0, width, 0),
        policy_arguments(run),
        run.cache_bytes(run.block(rows, width)),
    )


def decode_program(run: Held) -> Program:
    """Sampling the policy's answers to their prompts, which are read, to the longest answer."""
    policy = run.policy, policy_arguments(run)
    return _decoding(run, "decoding", *policy, sampled_rows(run), run.config.data.max_prompt_tokens)


def correction_program(run: Held) -> Program:
    """The frozen copy writes corrections behind whole reviews, at their longest; those by both of
    its links where they are written side by side."""
    rows = filled(run.config.conscience.batch_size, run.row_shards)
    settings = conscience_settings(run.config)
    rows *= 1 + settings.side_by_side
    read = run.config.conscience.max_review_tokens
    keep = settings.review.layout == "turn"
    return _decoding(run, "correction", run.frozen, ("frozen",), rows, read, keep)


def _decoding(
    run: Held,
    name: str,
    params: dict,
    arguments: tuple[str, ...],
    rows: int,
    read: int,
    keep_block: bool = False,
) -> Program:
    """Sampling on top of `read` tokens a row, to the longest answer."""
    width = bucket(run.config.sampling.max_new_tokens, WIDTH_STEP, 1 << 30)
    # The first token comes from the prefill; a stage runs until its slots are filled.
    ends = [min(slots, width - 1) for slots in stages(width)]
    key = key_for(0, Purpose.CANDIDATES).dtype
    return Program(
        name,
        f"{rows} answers of {width} tokens",
        lambda: decode.lower(
            run.model,
            params,
            read_prompts(run, rows, read),
            Sampler(sampler_settings((0,), width), run.rows((rows, 1), key)),
            run.rows((rows,), jnp.bool_),
            width=width,
            keep_block=keep_block,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows, read, width - 1, width - 1),
        arguments,
        run.cache_bytes(run.block(rows, read), run.block(rows, width, whole=keep_block)),
        trips=tuple(np.diff([0, *ends]).tolist()),
    )


def read_prompts(run: Held, rows: int, tokens: int) -> Prompts:
    """What prefill returns of so many rows, as shapes with shardings."""
    last = run.rows((rows, run.model.hidden_size), run.settings.dtype)
    return Prompts((run.block(rows, tokens),), run.rows((rows,)), last)


def reference_program(run: Held) -> Program:
    """The frozen copy's log-probs of one answer to each prompt, which is read."""
    rows = filled(run.config.conscience.batch_size, run.row_shards)
    read, width = run.config.data.max_prompt_tokens, run.config.sampling.max_new_tokens
    width = bucket(width, WIDTH_STEP, 1 << 30)
    return Program(
        "reference",
        f"log-probs of {rows} answers of {width} tokens",
        lambda: answer_log_probs.lower(
            run.model,
            run.frozen,
            read_prompts(run, rows, read),
            run.rows((rows, 1, width)),
            run.rows((rows, 1)),
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows, read, width, width),
        ("frozen",),
        run.cache_bytes(run.block(rows, read), run.block(rows, width, whole=True)),
    )


def review_program(run: Held) -> Program:
    """The conscience's verdict on whole quoted reviews, at their longest, nothing of them read
    before (a run reads what reviews have in common once)."""
    conscience = run.config.conscience
    rows, width = filled(conscience.batch_size, run.row_shards), conscience.max_review_tokens
    forms = len(conscience_settings(run.config).review.forms)
    nothing = Prompts(
        (), run.whole((1,)), run.whole((1, run.model.hidden_size), run.settings.dtype)
    )
    words = run.whole((forms, WORD_TOKENS_STEP))
    return Program(
        "review",
        f"{rows} reviews of {width} tokens, {forms} form{'s' if forms > 1 else ''} of the question",
        lambda: word_margins.lower(
            run.model,
            run.frozen,
            nothing,
            run.rows((rows, forms, width)),
            run.rows((rows, forms)),
            words,
            words,
            dtype=run.settings.dtype,
        ),
        ideal.causal_read_flops(run.model, rows * forms, 0, width, 1),
        ("frozen",),
    )


def sampled_rows(run: Held) -> int:
    """All prompts of a round are answered at once, each as often as the chain wants samples. Those
    of one prompt share what was read of it; here each counts as having read it, an upper bound."""
    conscience = run.config.conscience
    samples = conscience.samples if "best" in conscience.chain else 1
    return filled(heard_size(run.config, run.config.training.batch_size) * samples, run.row_shards)
