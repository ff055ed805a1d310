"""Verbose cloning (Dromedary, 2305.03047, section 3.4): the engraved model answers under a persona
that is thorough, and the base model learns what passes the filters, without the persona."""

from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import BUNDLED, Principle
from emergent_alignment.errors import UserError
from emergent_alignment.randomness import Purpose
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.answers.filters import (
    ANSWER_RULES,
    AnswerFilter,
    answer_filter,
    words,
)
from emergent_alignment.self_align.answers.guidance import Guidance
from emergent_alignment.self_align.answers.sampling import sampled_answers
from emergent_alignment.self_align.engraving import training_config
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageResult, StageRun
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import read_text
from emergent_alignment.storage.spread import limited

_SHOWN = 4  # examples of each outcome that the report may show


def read_persona(source: str) -> str:
    """The persona's text, bundled or of a file. Raises UserError where the file is missing or
    empty."""
    if source == BUNDLED:
        return resources.files(__package__).joinpath("persona.txt").read_text("utf-8").strip()
    place = "config.self_align.reinforcement.verbose.persona"
    try:
        text = read_text(Path(source), "name a text file").strip()
    except UserError as error:
        raise UserError(f"{place}: {source} cannot be read ({error})") from None
    if not text:
        raise UserError(f"{place}: {source} is empty; write who is to answer")
    return text


def clone_verbosity(stage: StageRun, engraved: Setup, prompts: list[list[Message]]) -> StageResult:
    """Sample under the persona, filter, and train the base model on what is left, in the stage's
    run."""
    wanted = stage.config.self_align.reinforcement.verbose
    persona = read_persona(wanted.persona)
    prompts = limited(prompts, wanted.limit)
    records = _sampled(stage, engraved, persona, prompts)
    rules, judged = _filter(stage.config, persona), []
    for prompt, record in zip(prompts, records):
        asked = prompt[-1]["content"]
        rule = rules.broken_by_text(asked, record["text"], record["ended"])
        judged.append(
            {"prompt": asked, "response": record["text"], "ended": record["ended"], "rule": rule}
        )
    kept = [{k: v for k, v in one.items() if k != "rule"} for one in judged if not one["rule"]]
    dropped = Counter(one["rule"] for one in judged if one["rule"])
    if not kept:
        said = "; ".join(
            f"{rule} {count} ({ANSWER_RULES[rule]})" for rule, count in dropped.most_common()
        )
        raise UserError(
            f"{stage.folder.path}: no thorough answer is left, of {len(judged)}: {said}. min_words "
            "and max_new_tokens are fields of config.self_align.reinforcement.verbose, the others "
            "of config.self_align.answers"
        )
    stage.folder.write_rows(kept)
    _train(stage, len(kept))
    counts = {
        "made": len(judged),
        "kept": len(kept),
        "dropped": {rule: dropped[rule] for rule in ANSWER_RULES if dropped[rule]},
        "ended": sum(one["ended"] for one in kept),
        "mean_words": sum(len(words(one["response"])) for one in kept) / len(kept),
    }
    return StageResult(counts, _examples(judged))


def _sampled(stage: StageRun, engraved: Setup, persona: str, prompts) -> list[dict]:
    """Stage 2's sampling, of the engraved model and with the persona before each prompt."""
    limit = stage.config.self_align.reinforcement.verbose.max_new_tokens
    config = changed(stage.config, {"self_align.answers.max_new_tokens": limit})
    rows = [engraved.chat.prompt_tokens(as_persona(engraved.chat, persona, p)) for p in prompts]
    stage = replace(stage, config=config, setup=engraved)
    return sampled_answers(stage, rows, Purpose.VERBOSE_ANSWERS)


def as_persona(chat: Chat, persona: str, prompt: list[Message]) -> list[Message]:
    """The conversation with the persona before it, in the first turn where the chat template shows
    no system turn."""
    try:
        messages = [{"role": "system", "content": persona}, *prompt]
        if persona in chat.prompt_text(messages):
            return messages
    except UserError:
        pass
    first = {"role": prompt[0]["role"], "content": f"{persona}\n\n{prompt[0]['content']}"}
    return [first, *prompt[1:]]


def _filter(config: SelfAlignConfig, persona: str) -> AnswerFilter:
    """Stage 2's rules for the text of an answer; what must not leak is the persona."""
    settings, fewest = config.self_align.answers, config.self_align.reinforcement.verbose.min_words
    return answer_filter(
        changed(settings, {"require_principle": False, "min_words": fewest}),
        Guidance((Principle(1, "persona", persona),), ()),
    )


def _train(stage: StageRun, num_rows: int) -> None:
    data = str(stage.folder.data)
    config = training_config(stage.config, data, num_rows)
    setup = replace(stage.setup, config=config)
    finetune(config, stage.folder.run, setup=setup, name="verbose cloning")


def _examples(judged: list[dict]) -> list[dict]:
    shown: Counter = Counter()
    examples = []
    for one in judged:
        shown[one["rule"]] += 1
        if shown[one["rule"]] <= _SHOWN:
            examples.append(
                {k: v for k, v in one.items() if k != "rule"} | {"dropped_by": one["rule"]}
            )
    return examples
