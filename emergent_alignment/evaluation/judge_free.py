"""Evaluation without a judge: log-probs of matched answers, held-out task loss, and what the
frozen conscience says of sampled answers to prompts of kinds that training never saw."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Array, Key

from emergent_alignment.conscience.review import ReviewSettings, reader_of, scores
from emergent_alignment.data.batches import bucket, pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.generation.prefill import answer_log_probs, prefill
from emergent_alignment.generation.sampler import SamplerSettings
from emergent_alignment.generation.text import Answer, Batching, sample_answers
from emergent_alignment.intervals import Interval, mean_interval, share_interval
from emergent_alignment.models.model import Model
from emergent_alignment.progress import OnProgress


@dataclass(frozen=True)
class TokenLimits:
    """Token limits and batch size of an evaluation, as the run had them. Widths are multiples of
    `bucket`, those of responses of `response_bucket` where it is not 0."""

    max_prompt: int
    max_response: int
    bucket: int
    batch_size: int
    response_bucket: int = 0


def response_log_probs(
    model: Model,
    params: dict,
    prompts: list[list[int]],
    responses: list[list[list[int]]],
    limits: TokenLimits,
    *,
    progress: OnProgress = lambda done, total: None,
) -> np.ndarray:
    """float32[prompts, answers]: summed log-probs of several responses to each prompt, all of
    a prompt's responses in one row. Every prompt has the same number of responses."""
    longest = [max(map(len, rows), default=0) for rows in (prompts, sum(responses, []))]
    model.config.check_row(
        sum(longest),
        f"{model.source}: a prompt of {longest[0]} tokens with an answer of {longest[1]}",
        "lower config.data.max_prompt_tokens or max_response_tokens",
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    summed, step = np.zeros((len(prompts), len(responses[0])), np.float32), limits.bucket
    width = _width([tokens for row in responses for tokens in row], limits.response_bucket or step)
    for start in range(0, len(order), limits.batch_size):
        rows = order[start : start + limits.batch_size]
        # The last batch repeats its last row: every batch has the same shape.
        filled = rows + [rows[-1]] * (limits.batch_size - len(rows))
        asked = [prompts[i] for i in filled]
        prompt_tokens, prompt_lengths = pad_rows(asked, _width(asked, step))
        read = prefill(model.config, params, prompt_tokens, prompt_lengths, dtype=model.dtype)
        tokens, lengths = pad_rows([answer for i in filled for answer in responses[i]], width)
        shape = (len(filled), summed.shape[1])
        log_probs, _ = answer_log_probs(
            model.config,
            params,
            read,
            tokens.reshape(*shape, width),
            lengths.reshape(shape),
            dtype=model.dtype,
        )
        summed[rows] = np.asarray(log_probs)[: len(rows)]
        progress(start + len(rows), len(order))
    return summed


def held_out_margin(
    model: Model,
    params: dict,
    chat: Chat,
    examples: list[Example],
    limits: TokenLimits,
    *,
    progress: OnProgress = lambda done, total: None,
) -> dict:
    """Over matched held-out rows: log P(safe) − log P(harmful), nats a pair, and the parts.

    {"margin", "safe_log_prob", "harmful_log_prob"}, each an interval with its `per_item`
    values; {} where no row is matched.
    """
    matched = [example for example in examples if example.safe and example.harmful]
    if not matched:
        return {}
    prompts, pairs = [], []
    for example in matched:
        sides = [
            tokenize(replace(example, target=answer), chat, limits.max_prompt, limits.max_response)
            for answer in (example.safe, example.harmful)
        ]
        prompts.append(sides[0].prompt)
        pairs.append([side.target for side in sides])
    log_probs = response_log_probs(model, params, prompts, pairs, limits, progress=progress)
    values = {
        "margin": log_probs[:, 0] - log_probs[:, 1],
        "safe_log_prob": log_probs[:, 0],
        "harmful_log_prob": log_probs[:, 1],
    }
    return {
        name: mean_interval(items).to_json() | {"per_item": items.tolist()}
        for name, items in values.items()
    }


def held_out_task_loss(
    model: Model,
    params: dict,
    chat: Chat,
    examples: list[Example],
    limits: TokenLimits,
    *,
    progress: OnProgress = lambda done, total: None,
) -> Interval:
    """Σ NLL / tokens over the targets of held-out rows, nats a token; the interval resamples
    rows, with the number of tokens held."""
    rows = [tokenize(example, chat, limits.max_prompt, limits.max_response) for example in examples]
    prompts, targets = [row.prompt for row in rows], [[row.target] for row in rows]
    log_probs = response_log_probs(model, params, prompts, targets, limits, progress=progress)
    mean_tokens = np.mean([len(row.target) for row in rows])
    return mean_interval(-log_probs[:, 0] / mean_tokens)


def answers_to(
    model: Model,
    chat: Chat,
    examples: list[Example],
    limits: TokenLimits,
    sampler: SamplerSettings,
    key: Key[Array, ""],
    *,
    progress: OnProgress = lambda done, total: None,
) -> list[Answer]:
    """One answer of the model as it stands (adapters on) to each example's prompt."""
    prompts = [chat.prompt_tokens(example.messages)[-limits.max_prompt :] for example in examples]
    answers: list[Answer | None] = [None] * len(prompts)
    sampled = sample_answers(
        model,
        model.policy,
        chat,
        prompts,
        key,
        sampler,
        Batching(limits.batch_size, limits.bucket),
    )
    for done, (index, answer) in enumerate(sampled, 1):
        answers[index] = answer
        progress(done, len(prompts))
    return answers


def flag_rate(
    frozen: Model,
    chat: Chat,
    review: ReviewSettings,
    threshold: float,
    examples: list[Example],
    answers: list[Answer],
) -> dict:
    """What the frozen conscience says of sampled answers: {"flag_rate", "scores", "answers"}."""
    nats = scores(
        reader_of(frozen, chat, review),
        review,
        [example.messages for example in examples],
        [answer.text for answer in answers],
    )
    flagged = nats < threshold
    return {
        "flag_rate": share_interval(int(flagged.sum()), len(nats)).to_json(),
        "scores": nats.tolist(),
        "answers": [
            {
                "prompt": example.messages[-1]["content"],
                "kind": example.kind,
                "answer": answer.text,
                "score": float(score),
                "flagged": bool(flag),
            }
            for example, answer, score, flag in zip(examples, answers, nats, flagged)
        ],
    }


def kl_to_frozen(
    frozen: Model,
    chat: Chat,
    examples: list[Example],
    answers: list[Answer],
    limits: TokenLimits,
) -> Interval:
    """k1 estimate of KL(π_θ ‖ π_θ₀) over answers that the policy sampled, nats a token:
    the mean of log π_θ − log π_θ₀, exact in expectation where they were drawn at temperature 1."""
    prompts = [chat.prompt_tokens(example.messages)[-limits.max_prompt :] for example in examples]
    responses = [[answer.tokens] for answer in answers]
    base = response_log_probs(frozen, frozen.params, prompts, responses, limits)[:, 0]
    policy = np.array([answer.log_probs.sum() for answer in answers])
    mean_tokens = np.mean([len(answer.tokens) for answer in answers])
    return mean_interval((policy - base) / mean_tokens)


def _width(rows: list[list[int]], step: int) -> int:
    """The bucket that holds the longest row."""
    return bucket(max(map(len, rows)), step, 1 << 30)
