"""The two-by-two of one model: sample, measure, judge, keep.

In the folder two-by-two/step-N of an arm, N the steps it was trained: answers.jsonl, every answer
as it came; harm-JUDGE.jsonl, what each judge made of them; result.json, what it adds up to. In the
folders trained and rephrased within it the same, under a system text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emergent_alignment.conscience.question import told_before
from emergent_alignment.conscience.review import reader_of, scores
from emergent_alignment.data.examples import Example
from emergent_alignment.data.messages import Message
from emergent_alignment.data.scenarios.forms import UNSEEN_KINDS, Cells, in_form
from emergent_alignment.data.two_by_two import load_cells
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.answer_records import ANSWERS
from emergent_alignment.evaluation.answering import sample_missing, sampling_identity
from emergent_alignment.evaluation.judge_free import TokenLimits, response_log_probs
from emergent_alignment.evaluation.settings import EvaluationConfig, TwoByTwoSection
from emergent_alignment.evaluation.two_by_two.judging import CheckedJudge, judged_harmful
from emergent_alignment.evaluation.two_by_two.measures import (
    CELL_NAMES,
    margins,
    rule_figures,
    summarize_answers,
    summarize_margins,
)
from emergent_alignment.evaluation.two_by_two.results import RESULT, kept_result, step_folder
from emergent_alignment.intervals import mean_interval
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup, conscience_settings
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_values import digest, plain
from emergent_alignment.storage.spread import limited, spread_kinds


class UnseenPlace(NamedTuple):
    """Which answer: the number of the prompt among those of unseen kinds, and of the sample."""

    unseen: int
    sample: int


@dataclass(frozen=True)
class Measured:
    """A model that is measured: its arm's name, the steps it was trained, the model, and `base`,
    which holds its frozen copy; and where every prompt is `told` a system text first (one of
    results.TOLD), that text."""

    arm: str
    step: int
    setup: Setup
    base: Setup
    told: str = ""
    system: str = ""

    def asked(self, prompt: str) -> list[Message]:
        """A prompt as it is put to the model: as training put it, where it is told the text."""
        turn = [{"role": "user", "content": prompt}]
        return told_before(turn, self.system) if self.told else turn


def require_form(settings: TwoByTwoSection, examples: Sequence[Example], source: str) -> None:
    """Raise UserError where no target has the form that is asked about."""
    if not any(in_form(example.target, settings.form) for example in examples):
        raise UserError(
            f"config.two_by_two.form: no target of {source} begins with {settings.form!r}; name "
            "the form that the task teaches"
        )


def evaluate_two_by_two(
    config: EvaluationConfig,
    measured: Measured,
    judges: Sequence[CheckedJudge],
    directory: Path,
    *,
    overwrite: bool = False,
) -> tuple[dict, Path]:
    """Measure a model as config.two_by_two says, in `directory`/two-by-two/step-N; returns the
    result and its file. Answers that an earlier call has sampled are kept; `overwrite` drops those
    of other settings.

    Raises UserError for a folder of something else.
    """
    settings = config.two_by_two
    folder = GrowingFolder(step_folder(directory, measured.step, measured.told))
    cells = load_cells(settings.world, UNSEEN_KINDS)
    sampling = sampling_identity(config, settings, measured.setup.model)
    sampling["prompts"] = digest([one.prompt for one in cells])
    told = {"told": measured.told, "system": measured.system} if measured.told else {}
    folder.claim(ANSWERS, sampling | told, overwrite=overwrite)
    label = ", ".join(filter(None, (measured.arm, f"seed {config.seed}", measured.told)))
    label = f"{label}, step {measured.step}"
    result = told | {
        "arm": measured.arm,
        "step": measured.step,
        "seed": config.seed,
        "world": settings.world,
        "form": settings.form,
        "limit": settings.limit,
        "samples": settings.samples,
        "sampling": sampling,
        "judges": {one.judge.name: one.check | {"identity": one.judge.identity} for one in judges},
    }
    path = folder.path / RESULT
    kept = kept_result(folder.path)
    if kept is not None and kept | plain(result) == kept:
        return kept, path
    with in_force(measured.base.mesh):
        result["margins"] = _margins(config, measured, cells, label)
        result |= _of_answers(config, measured, judges, cells, folder, label)
    write_json(path, plain(result))
    return result, path


def _margins(config: EvaluationConfig, measured: Measured, cells: list[Cells], label: str) -> dict:
    chosen, chat = limited(cells, config.two_by_two.limit), measured.setup.chat
    limits = _limits(config)
    prompts = [chat.prompt_tokens(measured.asked(one.prompt)) for one in chosen]
    prompts = [tokens[-limits.max_prompt :] for tokens in prompts]
    answers = [
        [chat.response_tokens(getattr(one, name))[: limits.max_response] for name in CELL_NAMES]
        for one in chosen
    ]
    model = measured.setup.model
    with progress(f"{label}: log-probs of four answers") as meter:
        log_probs = response_log_probs(
            model, model.policy, prompts, answers, limits, progress=meter
        )
    return summarize_margins(margins(log_probs), [one.kind for one in chosen])


def wanted_places(kinds: Sequence[str], samples: int) -> list[UnseenPlace]:
    """`samples` answers: so many to each prompt, and one more to some that are spread over the
    kinds."""
    each, more = divmod(samples, len(kinds))
    once_more = set(spread_kinds(range(len(kinds)), kinds, more)) if more else set()
    return [
        UnseenPlace(prompt, sample)
        for prompt in range(len(kinds))
        for sample in range(each + (prompt in once_more))
    ]


def _of_answers(
    config: EvaluationConfig,
    measured: Measured,
    judges: Sequence[CheckedJudge],
    cells: list[Cells],
    folder: GrowingFolder,
    label: str,
) -> dict:
    settings = config.two_by_two
    places = wanted_places([one.kind for one in cells], settings.samples)
    asked = {place: measured.asked(cells[place.unseen].prompt) for place in places}
    with progress(f"{label}: answers") as meter:
        records = sample_missing(config, settings, measured.setup, asked, folder, progress=meter)
    answers = [records[place]["answer"] for place in places]
    prompts = [cells[place.unseen].prompt for place in places]
    kinds = [cells[place.unseen].kind for place in places]
    formed = [in_form(answer, settings.form) for answer in answers]
    harmful = {
        one.judge.name: _labels(one, prompts, answers, kinds, folder, label) for one in judges
    }
    # What an answer is worth does not depend on what the model was told before it.
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    frozen = _frozen_scores(config, measured.base, turns, answers)
    return {
        **summarize_answers(formed, kinds, harmful),
        "rules": rule_figures(answers),
        "frozen_score": mean_interval(frozen).to_json(),
        "kl": _kl(config, measured, list(records.values())).to_json(),
        "answers": [
            {
                "prompt": place.unseen,
                "sample": place.sample,
                "kind": kind,
                "in_form": form,
                "frozen_score": score,
                "harmful": {name: labels[i] for name, labels in harmful.items()},
            }
            for i, (place, kind, form, score) in enumerate(
                zip(places, kinds, formed, frozen.tolist())
            )
        ],
    }


def _labels(
    checked: CheckedJudge,
    prompts: list[str],
    answers: list[str],
    kinds: list[str],
    folder: GrowingFolder,
    label: str,
) -> list[bool | None]:
    """Whether each answer is harmful, None for those that the judge is not asked about."""
    name, most = checked.judge.name, checked.judge.most
    asked = spread_kinds(range(len(answers)), kinds, most or len(answers))
    verdicts = judged_harmful(
        checked,
        [prompts[i] for i in asked],
        [answers[i] for i in asked],
        folder,
        f"{label}: judging ({name})",
    )
    by_place = dict(zip(asked, verdicts))
    return [by_place.get(i) for i in range(len(answers))]


def _frozen_scores(config: EvaluationConfig, base: Setup, asked: list, answers: list[str]):
    """float32[answers]: what the frozen copy says of them, in nats."""
    review = conscience_settings(config).review
    return np.asarray(scores(reader_of(base.model, base.chat, review), review, asked, answers))


def _kl(config: EvaluationConfig, measured: Measured, records: list[dict]):
    """The mean of log π_θ − log π_θ₀ over the sampled answers, nats a token: KL(π_θ ‖ π_θ₀) where
    they were drawn at temperature 1, and else a measure of distance."""
    chat, limits = measured.setup.chat, _limits(config)
    prompts = [chat.prompt_tokens(one["messages"])[-limits.max_prompt :] for one in records]
    answers = [[chat.response_tokens(one["answer"], ended=one["ended"])] for one in records]
    # An answer that says nothing and did not end has no tokens to compare.
    kept = [i for i, (tokens,) in enumerate(answers) if tokens]
    prompts, answers = [prompts[i] for i in kept], [answers[i] for i in kept]
    policy, base = (
        response_log_probs(setup.model, setup.model.policy, prompts, answers, limits)[:, 0]
        for setup in (measured.setup, measured.base)
    )
    return mean_interval((policy - base) / np.mean([len(tokens) for (tokens,) in answers]))


def _limits(config: EvaluationConfig) -> TokenLimits:
    return TokenLimits(
        config.data.max_prompt_tokens,
        config.data.max_response_tokens,
        config.data.bucket_tokens,
        config.conscience.batch_size,
    )
