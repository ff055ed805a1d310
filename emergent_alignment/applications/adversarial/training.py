"""Adversarial prompting: hostile prompts without targets, and benign look-alikes beside them.

The policy answers both. The frozen copy reviews (always in the `quote` layout: text under review
cannot talk to the reviewer), and a flagged compliance is rejected against a safe answer of its
own. Benign rows also learn the frozen copy's answers, so that the policy stays as helpful as it
was. In rounds, attacks that succeeded are kept and varied (pool.py).
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from emergent_alignment.applications.adversarial.pool import (
    PoolSettings,
    Round,
    pool_of_round,
    round_of,
)
from emergent_alignment.applications.adversarial.prompts import AttackPrompt, Side, load_attacks
from emergent_alignment.applications.adversarial.refusals import attack_succeeded, is_refusal
from emergent_alignment.applications.adversarial.settings import AdversarialConfig
from emergent_alignment.conscience.pairs import Reviewed
from emergent_alignment.data.batches import bucket
from emergent_alignment.data.mixing import MixedSchedule
from emergent_alignment.data.tokenized import Tokenized
from emergent_alignment.data.written_out import written_out
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import gather, is_first, together
from emergent_alignment.runs.from_config import (
    Setup,
    check_positions,
    check_rows,
    conscience_settings,
    examples_digest,
    load_model,
)
from emergent_alignment.runs.held_out import held_out_examples, in_loop
from emergent_alignment.runs.listening_inputs import (
    POOL,
    Listening,
    PromptsOfStep,
    check_heard,
    prompt_objective,
    read_pool,
)
from emergent_alignment.runs.own_answers import own_answers
from emergent_alignment.runs.step_inputs import PromptRows, policy_inputs
from emergent_alignment.runs.training_run import Run, Training, train
from emergent_alignment.runs.watched_pairs import watched_examples, watching
from emergent_alignment.runs.workdir import decided_in
from emergent_alignment.settings import check_settings
from emergent_alignment.storage.spread import limited
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.state import TrainState

_WIDTH_STEP = 8


def train_against_attacks(
    config: AdversarialConfig,
    workdir: Path,
    *,
    setup: Setup | None = None,
    name: str = "training",
    profiled: range = range(0),
) -> TrainState:
    """Train as the config says; see `training_run.train` for what a run is.

    Returns the last state. Raises UserError before anything is trained where the input is not
    right, and Stopped where a process was asked to stop (the state is saved).
    """
    with together():
        config = decided_in(workdir, config)
        check_settings(config)
        _check_conscience(config)
        hostile = training_prompts(config, "hostile")
        benign = training_prompts(config, "benign") if num_benign(config) else []
        setup = setup or load_model(config)
        check_rows(config, setup.mesh)
        check_heard(config, setup.mesh, config.training.batch_size)
        check_positions(config, setup.model)
        pool, pairs = read_pool(config, setup.chat), watched_examples(config)
        held_out = written_out(held_out_examples(config), setup.chat)

    def inputs(run: Run[AdversarialConfig]) -> MakeInput:
        return watching(run, _inputs(run, hostile, benign, pool), pairs)

    digits = examples_digest([*hostile, *benign])
    hooks = functools.partial(in_loop, examples=held_out)
    training = Training(digits, inputs, prompt_objective(config), hooks=hooks)
    return train(config, workdir, setup, training, name=name, profiled=profiled)


def training_prompts(config: AdversarialConfig, side: Side) -> list[AttackPrompt]:
    """The prompts of one side that training may see; config.data.limit of them, evenly spread
    over the file, where it is not 0."""
    wanted = config.adversarial
    prompts = load_attacks(wanted.prompts, side, wanted.held_out, split="train")
    return limited(prompts, config.data.limit)


def num_benign(config: AdversarialConfig) -> int:
    """How many rows of a batch are benign; at least one is hostile."""
    size = config.training.batch_size
    return min(round(size * config.adversarial.benign_share), size - 1)


def _check_conscience(config: AdversarialConfig) -> None:
    """Raise UserError where the settings make no sense for hostile prompts."""
    conscience, adversarial = config.conscience, config.adversarial
    if not conscience.enabled or conscience.candidate != "policy":
        raise UserError(
            "config.conscience: hostile prompts have no targets, so there is nothing to learn from "
            "them but the conscience's pairs; set enabled=True and candidate=policy"
        )
    if conscience_settings(config).review.layout != "quote":
        raise UserError(
            "config.conscience.layout: `turn` lets a hostile prompt talk to its reviewer; set quote"
        )
    if adversarial.rounds > config.training.steps:
        raise UserError(
            f"config.adversarial.rounds: {adversarial.rounds} rounds need as many steps, and "
            f"config.training.steps is {config.training.steps}"
        )


def _inputs(
    run: Run[AdversarialConfig],
    hostile: list[AttackPrompt],
    benign: list[AttackPrompt],
    others: PromptsOfStep,
) -> MakeInput:
    """What a step is fed: its round's pool and the benign rows, as `policy_inputs` has them; and
    perhaps the prompts of a pool that is not hostile, to listen to."""
    config = run.config
    listening = Listening(run, config.training.batch_size, others)
    with run.clock.part("review"):
        helped = _helped(run, benign)
    answers = [answer.tokens[: config.data.max_response_tokens] for _, answer in helped]
    width = max(len(_prompt_tokens(run, prompt)) for prompt in [*hostile, *benign])
    settings = PoolSettings(
        run.workdir,
        tuple(hostile),
        config.adversarial.held_out,
        config.adversarial.pool,
        config.adversarial.variants,
        bucket(width, _WIDTH_STEP, 1 << 30),
    )
    longest = max([config.sampling.max_new_tokens, *map(len, answers)])
    shape = settings.max_tokens, bucket(longest, _WIDTH_STEP, 1 << 30)
    feeding: dict[Round, tuple[list[AttackPrompt], MakeInput]] = {}  # the round at hand alone

    def make_input(step: int, trainable: dict) -> StepInput:
        now = round_of(step, config.adversarial.rounds, config.training.steps)
        if now not in feeding:
            with run.clock.part("review"):
                pool = pool_of_round(run, settings, now, step, trainable)
            prompts = [*pool, *(prompt for prompt, _ in helped)]
            feeding.clear()
            feeding[now] = prompts, _round_inputs(run, listening, prompts, answers, shape, now)
        prompts, inner = feeding[now]
        return _told(inner(step, trainable), prompts, run.conscience.threshold, now)

    return make_input


def _helped(
    run: Run[AdversarialConfig], benign: list[AttackPrompt]
) -> list[tuple[AttackPrompt, Answer]]:
    """The benign prompts that the frozen copy helps with, and its answers; a refusal, or nothing,
    is no help to learn."""
    if not benign:
        return []
    messages = [prompt.messages for prompt in benign]
    answers = own_answers(run.config, run.setup, messages, "answering benign prompts")
    helped = [
        (prompt, answer)
        for prompt, answer in zip(benign, answers)
        if answer.text.strip() and not is_refusal(answer.text)
    ]
    if not helped:
        raise UserError(
            "config.adversarial.benign_share: the frozen copy itself answers none of the benign "
            "prompts, so that they have no targets; set it to 0"
        )
    if len(helped) < len(benign) and is_first():
        print(
            f"of {len(benign)} benign prompts the frozen copy answers {len(helped)}; the others "
            "are left out",
            file=sys.stderr,
        )
    return helped


def _round_inputs(
    run: Run[AdversarialConfig],
    listening: Listening,
    prompts: list[AttackPrompt],
    answers: list[list[int]],
    shape: tuple[int, int],
    now: Round,
) -> MakeInput:
    """`policy_inputs` over one round's rows, of which the benign ones are the last."""
    config = run.config
    num_hostile, benign = len(prompts) - len(answers), num_benign(config)
    targets = [[]] * num_hostile + answers
    tokenized = [
        Tokenized(_prompt_tokens(run, prompt), target, False, False)
        for prompt, target in zip(prompts, targets)
    ]
    schedule = MixedSchedule(
        (num_hostile, len(answers)),
        (config.training.batch_size - benign, benign),
        ((config.seed, 0, now.number), (config.seed, 1)),
        shape,
        now.first_step,
    )
    asked = PromptRows(schedule, [prompt.messages for prompt in prompts], tokenized)
    settle = _sparing(prompts, run.conscience.threshold)
    return policy_inputs(run, asked, listening, settle=settle)


def _sparing(
    prompts: list[AttackPrompt], threshold: float
) -> Callable[[list[int], list[Reviewed]], list[Reviewed]]:
    """Candidates that must not be rejected count as approved, whatever a better answer scores:
    refusals of hostile prompts, and what is not flagged of the answers to benign ones."""

    def spared(prompt: AttackPrompt, review: Reviewed) -> bool:
        if prompt.side == "hostile":
            return is_refusal(review.candidate)
        return review.score >= threshold

    def settle(rows: list[int], reviewed: list[Reviewed]) -> list[Reviewed]:
        return [
            replace(review, outcome="approved", attempts=(), reference=None)
            if spared(prompts[row], review) and review.candidate.strip()
            else review
            for row, review in zip(rows, reviewed)
        ]

    return settle


def _told(
    inputs: StepInput, prompts: list[AttackPrompt], threshold: float, now: Round
) -> StepInput:
    """The step's input, with what its rows are in the journal and in the log; those of a pool of
    other prompts stay as they are."""
    others = [record for record in inputs.records if record.get("kind") == POOL]
    records = [
        record | {"side": prompts[record["row"]].side, "kind": prompts[record["row"]].kind}
        for record in inputs.records
        if record not in others
    ]
    if not records:
        return inputs
    rows = []
    for record in records:
        score = record["candidate_score"]
        score, text = float("nan") if score is None else score, record["candidate"]
        rows.append(
            [
                record["side"] == "hostile",
                attack_succeeded(text, score, threshold),
                is_refusal(text),
            ]
        )
    hostile, succeeded, refused = gather(np.array(rows, np.float32)).reshape(-1, 3).T
    scalars = {
        "attack/round": float(now.number),
        "attack/success": float(succeeded[hostile > 0].mean()),
        "attack/refused": float(refused[hostile > 0].mean()),
    }
    if (hostile == 0).any():
        scalars["benign/refused"] = float(refused[hostile == 0].mean())
    return replace(inputs, records=[*records, *others], scalars=inputs.scalars | scalars)


def _prompt_tokens(run: Run[AdversarialConfig], prompt: AttackPrompt) -> list[int]:
    return run.setup.chat.prompt_tokens(prompt.messages)[-run.config.data.max_prompt_tokens :]
