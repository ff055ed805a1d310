"""The whole evaluation of one model ("arm"), written as evaluation.json for the report."""

from dataclasses import asdict
from pathlib import Path

from emergent_alignment.data.examples import Example
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.evaluation.coding.answers import CODE_SCENARIO
from emergent_alignment.evaluation.judge_free import (
    TokenLimits,
    answers_to,
    flag_rate,
    held_out_margin,
    held_out_task_loss,
    kl_to_frozen,
)
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import (
    Setup,
    conscience_settings,
    evaluation_examples,
)
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.spread import spread, spread_kinds


def evaluate_arm(config: EvaluationConfig, base: Setup, model: Model, *, arm: str) -> dict:
    """Evaluate `model` on held-out rows; `base` holds the frozen reviewer.

    Margin and task loss need targets; flag rate, KL and bandit's findings are over answers
    sampled with config.evaluation's settings.
    """
    with in_force(base.mesh):
        return _evaluated(config, base, model, arm)


def _evaluated(config, base, model, arm) -> dict:
    evaluation, chat = config.evaluation, base.chat
    limits = TokenLimits(
        config.data.max_prompt_tokens,
        config.data.max_response_tokens,
        config.data.bucket_tokens,
        config.conscience.batch_size,
    )
    examples, conscience = (
        evaluation_examples(config.data, evaluation.limit),
        conscience_settings(config),
    )
    params = model.policy
    result = {"arm": arm, "model": base.model.source, "source": config.data.evaluation}
    with progress(f"{arm}: log-probs of held-out pairs") as meter:
        result |= held_out_margin(model, params, chat, examples, limits, progress=meter)
    with progress(f"{arm}: held-out task loss") as meter:
        task_loss = held_out_task_loss(model, params, chat, examples, limits, progress=meter)
        result["task_loss"] = task_loss.to_json()
    if evaluation.samples:
        result |= _sampled(config, base, model, conscience, examples, limits, arm)
    code = None
    if evaluation.code_prompts:
        code = _code(config, base, model, limits, arm)
    return result | {"code": code}


def write_evaluation(result: dict, directory: Path) -> Path:
    """evaluation.json in `directory`, whole or not at all."""
    path = directory / "evaluation.json"
    write_json(path, result)
    return path


def _sampled(config, base, model, conscience, examples, limits, arm: str) -> dict:
    chosen = spread(examples, config.evaluation.samples)
    label, limit = f"{arm}: answers to held-out prompts", config.evaluation.max_new_tokens
    key = key_for(config.seed, Purpose.HELD_OUT_ANSWERS)
    answers = _answers(config, base, model, chosen, limits, limit, key, label)
    flags = flag_rate(
        base.model, base.chat, conscience.review, conscience.threshold, chosen, answers
    )
    kl = kl_to_frozen(base.model, base.chat, chosen, answers, limits)
    return flags | {"kl": kl.to_json()}


def _code(config, base, model, limits, arm: str) -> dict:
    from emergent_alignment.data.code_security import inspect_code, summarize_code

    rows = load_scenario(CODE_SCENARIO, "heldout")
    examples = [
        Example(({"role": "user", "content": row["prompt"]},), row["harmful"], kind=row["kind"])
        for row in rows
    ]
    chosen = spread_kinds(examples, [row["kind"] for row in rows], config.evaluation.code_prompts)
    label, limit = f"{arm}: code for held-out tasks", config.evaluation.code_max_new_tokens
    key = key_for(config.seed, Purpose.HELD_OUT_CODE)
    answers = _answers(config, base, model, chosen, limits, limit, key, label)
    findings_by_answer = inspect_code([answer.text for answer in answers])
    records = [
        {"prompt": example.messages[-1]["content"], "answer": answer.text, **asdict(findings)}
        for example, answer, findings in zip(chosen, answers, findings_by_answer)
    ]
    return summarize_code(findings_by_answer) | {"answers": records}


def _answers(config, base, model, examples, limits, max_new_tokens: int, key, label: str):
    """One sampled answer to each example, with progress."""
    sampler = sampler_settings(
        base.chat.end_tokens,
        max_new_tokens,
        temperature=config.evaluation.temperature,
        top_p=config.evaluation.top_p,
    )
    with progress(label) as meter:
        return answers_to(model, base.chat, examples, limits, sampler, key, progress=meter)
