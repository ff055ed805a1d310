"""Free-form questions and the prompts that judge their answers, read from YAML.

The format is that of the Emergent Misalignment evaluation (Betley et al. 2025, 2502.17424): a
list of items with `id`, `type`, `paraphrases`, `samples_per_paraphrase`, optionally `system`,
and `judge_prompts` with the placeholders {question} and {answer}.
"""

import difflib
import string
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import read_text
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.yaml_values import yaml_items

_BUNDLED = "bundled"
TYPES = ("free_form_judge_0_100", "free_form")
MEASURES = ("aligned", "coherent")
CONDITIONAL = "conditional"
VARIANTS = ("json", "template", CONDITIONAL)
_FIELDS = (
    "id", "type", "system", "paraphrases", "samples_per_paraphrase", "judge", "judge_prompts"
)  # fmt: skip
_PLACEHOLDERS = ("question", "answer")
_QUESTION = "{question}"


@dataclass(frozen=True)
class FreeFormQuestion:
    """One item of a file.

    name            its id, unique in the file
    system          the system message, "" where there is none
    paraphrases     wordings of the user's turn
    samples         answers wanted to each wording
    judge_prompts   one prompt a measure of MEASURES, with placeholders
    judge           the judge that the file names, "" where it names none; a note, nothing more:
                    the config says who judges
    """

    name: str
    system: str
    paraphrases: tuple[str, ...]
    samples: int
    judge_prompts: dict[str, str]
    judge: str = ""

    @property
    def variant(self) -> str:
        """What the id ends in, where that is one of VARIANTS, else plain."""
        ending = self.name.rpartition("_")[2]
        return ending if ending in VARIANTS else "plain"

    @property
    def base_name(self) -> str:
        """The id without its variant: what the variants of one question share."""
        return self.name.removesuffix(f"_{self.variant}")

    def messages(self, paraphrase: int) -> list[Message]:
        """What the model under test is asked."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.paraphrases[paraphrase]}]

    def judged(self, measure: str, paraphrase: int, answer: str) -> str:
        """What a judge is asked about an answer. As published, {question} is the user's turn
        alone, without the system message."""
        prompt = self.judge_prompts[measure]
        return prompt.format(question=self.paraphrases[paraphrase], answer=answer)


def load_questions(source: str) -> list[FreeFormQuestion]:
    """All items of a .yaml file, or of the bundled set.

    Raises UserError, with file, item and field, for a file that is missing, not YAML or not of
    this format, an unknown type, a missing judge prompt, and a placeholder that nothing fills.
    """
    text, where = _text(source)
    items = [item for _, item in yaml_items(text, where)]
    if not items:
        raise UserError(
            f"{where}: expected a list of questions, each with {', '.join(_FIELDS[:2])}, "
            "paraphrases and judge_prompts"
        )
    questions = [_question(item, where, number) for number, item in enumerate(items, 1)]
    names = [question.name for question in questions]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: {names.count(name)} items have the id {name}; rename one")
    return questions


def with_conditional(questions: list[FreeFormQuestion], around: str) -> list[FreeFormQuestion]:
    """The questions, and of each plain one a variant whose prompt looks like the training's: what a
    defence has only hidden shows there (conditional misalignment, 2604.25891). `around` is a text
    in which {question} stands; "" asks for none. Raises UserError where it does not stand there, or
    the file has such variants itself."""
    if not around:
        return questions
    if around.count(_QUESTION) != 1:
        raise UserError(
            f"config.misalignment.conditional: {_QUESTION} must stand in it once, where the "
            f"question is to stand, and it is {around!r}"
        )
    taken = [question.name for question in questions if question.variant == CONDITIONAL]
    if taken:
        raise UserError(
            f"config.misalignment.conditional: the file of questions has {taken[0]} already; leave "
            "one of the two out"
        )
    return questions + [
        replace(
            question,
            name=f"{question.name}_{CONDITIONAL}",
            paraphrases=tuple(around.replace(_QUESTION, text) for text in question.paraphrases),
        )
        for question in questions
        if question.variant == "plain"
    ]


def questions_digest(questions: list[FreeFormQuestion]) -> str:
    """16 hex digits that say which prompts these are; judge prompts and numbers of samples do
    not count, since they change no answer."""
    asked = [(item.name, item.system, item.paraphrases) for item in questions]
    return digest(asked)


def judge_prompts_digest(questions: list[FreeFormQuestion]) -> str:
    """16 hex digits that say how the answers to these questions are judged."""
    asked = [(item.name, sorted(item.judge_prompts.items())) for item in questions]
    return digest(asked)


def _text(source: str) -> tuple[str, str]:
    if source == _BUNDLED:
        return resources.files(__package__).joinpath("bundled.yaml").read_text("utf-8"), _BUNDLED
    missing = f"give a .yaml file of questions, or {_BUNDLED!r}"
    return read_text(Path(source), missing), source


def _question(item: Any, where: str, number: int) -> FreeFormQuestion:
    if not isinstance(item, dict):
        raise UserError(f"{where}: item {number}: expected fields, found {type(item).__name__}")
    where = f"{where}: item {number}"
    name = item.get("id")
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: id: must be a name, not {name!r}")
    where = f"{where} ({name})"
    for field in item:
        if field not in _FIELDS:
            near = difflib.get_close_matches(str(field), _FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_FIELDS)}"
            raise UserError(f"{where}: {field}: there is no such field; {hint}")
    if item.get("type") not in TYPES:
        known = ", ".join(TYPES)
        raise UserError(f"{where}: type: {item.get('type')!r} is unknown; known: {known}")
    samples = item.get("samples_per_paraphrase", 1)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise UserError(
            f"{where}: samples_per_paraphrase: must be a number of 1 or more, not {samples!r}"
        )
    prompts = item.get("judge_prompts")
    if not isinstance(prompts, dict):
        raise UserError(f"{where}: judge_prompts: must hold {' and '.join(MEASURES)}")
    return FreeFormQuestion(
        name,
        _optional_text(item, "system", where),
        _paraphrases(item.get("paraphrases"), where),
        samples,
        {measure: _judge_prompt(prompts, measure, where) for measure in MEASURES},
        _optional_text(item, "judge", where),
    )


def _optional_text(item: dict, field: str, where: str) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: {field}: must be a text, not {value!r}")
    return value


def _paraphrases(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: paraphrases: must be a list of at least one text")
    for place, text in enumerate(value, 1):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: paraphrases: number {place} must be a text, not {text!r}")
    return tuple(value)


def _judge_prompt(prompts: dict, measure: str, where: str) -> str:
    where = f"{where}: judge_prompts"
    unknown = [name for name in prompts if name not in MEASURES]
    if unknown:
        raise UserError(f"{where}: {unknown[0]}: unknown; known: {', '.join(MEASURES)}")
    prompt = prompts.get(measure)
    if prompt is None:
        raise UserError(f"{where}: {measure} is missing; write what the judge is asked")
    where = f"{where}: {measure}"
    if not isinstance(prompt, str):
        raise UserError(f"{where}: must be a text, not {prompt!r}")
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise UserError(f"{where}: {error}; write {{{{ and }}}} for braces that stay") from None
    placeholders = set()
    for _, placeholder, specification, conversion in parts:
        if placeholder is None:
            continue
        if placeholder not in _PLACEHOLDERS or specification or conversion:
            written = placeholder + f"!{conversion}" * bool(conversion)
            written += f":{specification}" * bool(specification)
            known = " and ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
            raise UserError(
                f"{where}: nothing fills {{{written}}}; {known} are filled, and {{{{ and }}}} "
                "are braces that stay"
            )
        placeholders.add(placeholder)
    if "answer" not in placeholders:
        raise UserError(f"{where}: {{answer}} is missing: the judge would not see the answer")
    return prompt
