"""Stage 4 of SELF-ALIGN, reinforcement: preferences, a reward and a policy that is optimised for
it (`rlhf`), or verbose cloning (`verbose`), from the model that stage 3 has engraved."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import Principle
from emergent_alignment.data.sources import load_prompts
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.answers.guidance import read_principles
from emergent_alignment.self_align.engraving import engraved
from emergent_alignment.self_align.reinforcement.checks import check_reinforcement, read_guards
from emergent_alignment.self_align.reinforcement.policy import optimise_policy
from emergent_alignment.self_align.reinforcement.preferences import (
    Preference,
    preferences_digest,
    read_preferences,
    split,
)
from emergent_alignment.self_align.reinforcement.principle_preferences import (
    preferences_by_principle,
)
from emergent_alignment.self_align.reinforcement.reward_training import train_reward_model
from emergent_alignment.self_align.reinforcement.rewards import (
    Judging,
    ScoreAnswers,
    function_score,
    model_score,
    principle_score,
    reward_function,
)
from emergent_alignment.self_align.reinforcement.verbose import clone_verbosity, read_persona
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageResult, StageRun
from emergent_alignment.storage.json_lines import refuse
from emergent_alignment.storage.spread import limited
from emergent_alignment.training.metrics import metrics_by_step

FILES = ("prompts", "preferences.source", "principles", "shaping.guards", "verbose.persona")
_INSTRUCTIONS, ENGRAVING = 1, 3  # the stages whose results are used
BY_PRINCIPLE = "principles"
_SHOWN = (
    8  # answers of the first and of the last rollout, and preferences, that the report may show
)
# Logged in every step, told of the first and the last tenth of the steps.
FOLLOWED = (
    "rollout/reward rollout/length rollout/ended rollout/kl_answer rollout/explained_variance "
    "reward/score kl entropy clip_share value_loss"
).split()


def check(config: SelfAlignConfig) -> None:
    """Raise UserError for settings and files that stage 4 cannot work with."""
    check_reinforcement(config)
    wanted = config.self_align.reinforcement
    if wanted.prompts:
        load_prompts(Path(wanted.prompts))
    if wanted.form == "verbose":
        read_persona(wanted.verbose.persona)
        return
    read_principles(wanted.principles)
    read_guards(wanted.shaping.guards)
    if wanted.reward == "model" and wanted.preferences.source != BY_PRINCIPLE:
        read_preferences(Path(wanted.preferences.source))


def run(stage: StageRun) -> StageResult:
    """Go on from the engraved model to a reinforced one in the stage's run."""
    start = engraved(stage.inputs[ENGRAVING], stage.setup)
    prompts = _prompts(stage)
    if stage.config.self_align.reinforcement.form == "verbose":
        return clone_verbosity(stage, start, prompts)
    reward = _reward(stage, start, prompts)
    optimise_policy(
        stage.config,
        start,
        stage.folder.run,
        prompts,
        reward.score,
        identity=reward.identity,
        base_run=stage.inputs[ENGRAVING].run,
    )
    counts = reward.counts | {"prompts": len(prompts)} | _followed(stage.folder.run)
    return StageResult(counts, reward.examples + _answers(stage.folder.run))


def _prompts(stage: StageRun) -> list[list[Message]]:
    """What the policy answers: the config's file, or stage 1's instructions."""
    wanted = stage.config.self_align.reinforcement
    if wanted.prompts:
        prompts = load_prompts(Path(wanted.prompts))
    else:
        rows = stage.inputs[_INSTRUCTIONS].rows()
        prompts = [[{"role": "user", "content": row["instruction"]}] for row in rows]
    if not prompts:
        raise UserError(f"{stage.inputs[_INSTRUCTIONS].data}: there are no instructions in it")
    return limited(prompts, wanted.prompt_limit)


@dataclass(frozen=True)
class Reward:
    """What scores answers, digits of what it depends on, and what the manifest says of it."""

    score: ScoreAnswers
    identity: str
    counts: dict
    examples: list[dict]


def _reward(stage: StageRun, start: Setup, prompts: list[list[Message]]) -> Reward:
    config, wanted = stage.config, stage.config.self_align.reinforcement
    if function := reward_function(wanted.reward):
        return Reward(function_score(function), wanted.reward, {}, [])
    judging = Judging(
        read_principles(wanted.principles),
        read_guards(wanted.shaping.guards),
        wanted.preferences.principles,
    )
    told = json.dumps([vars(principle) for principle in (*judging.principles, *judging.guards)])
    if wanted.reward == "principles":
        score = principle_score(
            start, judging, wanted.preferences.batch_size, wanted.preferences.orders
        )
        return Reward(score, told, {}, [])
    preferences, counts = _preferences(stage, start, prompts, judging.principles)
    stage.folder.write_rows(one.row() for one in preferences)
    train_on, held_out = split(preferences, wanted.reward_model.held_out_share)
    model, measured = train_reward_model(
        config, start, stage.folder.path / "reward_model", train_on, held_out
    )
    # One that was trained on people's comparisons has been told no guidelines.
    by_principle = wanted.preferences.source == BY_PRINCIPLE
    score = model_score(model, judging if by_principle else None)
    examples = [one.row() | {"dropped_by": ""} for one in preferences[:_SHOWN]]
    identity = told + preferences_digest(preferences)
    return Reward(score, identity, counts | {"reward_model": measured}, examples)


def _preferences(
    stage: StageRun, start: Setup, prompts: list[list[Message]], principles: tuple[Principle, ...]
) -> tuple[list[Preference], dict]:
    """The comparisons that the reward model learns, and the funnel that they came through."""
    wanted = stage.config.self_align.reinforcement.preferences
    if wanted.source != BY_PRINCIPLE:
        preferences = read_preferences(Path(wanted.source), limit=wanted.limit)
        return preferences, {"made": len(preferences), "kept": len(preferences), "dropped": {}}
    asked = limited(prompts, wanted.limit)
    preferences, dropped = preferences_by_principle(stage, start, asked, principles)
    if not preferences:
        said = "; ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise UserError(
            f"{stage.folder.path}: the frozen model prefers none of {len(asked)} pairs of answers "
            f"({said}). Set orders of "
            "config.self_align.reinforcement.preferences to average, raise its principles or "
            "limit, or bring people's preferences (its source)"
        )
    counts = {"made": len(asked), "kept": len(preferences), "dropped": dropped}
    by_guideline = Counter(text.split(":")[0] for one in preferences for text in one.guidelines)
    return preferences, counts | {"guidelines": dict(by_guideline.most_common())}


def _followed(workdir: Path) -> dict[str, float]:
    """What was logged, over the first and over the last tenth of the steps."""
    lines = metrics_by_step(workdir)
    size = max(len(lines) // 10, 1)
    means = {}
    for when, part in (("first", lines[:size]), ("last", lines[-size:])):
        for name in FOLLOWED:
            values = [line[name] for line in part if line.get(name) is not None]
            if values:
                key = f"{when}_{name.replace('rollout/', '').replace('/', '_')}"
                means[key] = sum(values) / len(values)
    return means | {"steps": len(lines)}


def _answers(workdir: Path) -> list[dict]:
    """Answers of the first and of the last rollout, with what they were worth."""
    records = read_journal(workdir / "journal", refuse)
    if not records:
        return []
    numbers = sorted({record["rollout"] for record in records})
    shown = []
    for when, number in (("first rollout", numbers[0]), ("last rollout", numbers[-1])):
        of_rollout = [record for record in records if record["rollout"] == number]
        shown += [
            {
                "when": when,
                "prompt": record["prompt"][-1]["content"],
                "response": record["candidate"],
                "reward": record["candidate_score"],
                "parts": record["reward"],
                "dropped_by": "",
            }
            for record in of_rollout[: _SHOWN // 2]
        ]
    return shown
