"""What the model answers under: principles and worked examples, from files that a user may
replace. Every mistake in them is one line with file and line."""

import re
from dataclasses import dataclass
from importlib import resources

from emergent_alignment.data.principles import Principle, listed, principles_of, text_field
from emergent_alignment.errors import UserError
from emergent_alignment.self_align.answers.settings import AnswersSection

_BUNDLED = resources.files(__package__)


@dataclass(frozen=True)
class WorkedExample:
    """An instruction, thoughts that name the principles that apply, and the answer."""

    instruction: str
    thoughts: str
    answer: str


@dataclass(frozen=True)
class Guidance:
    """All principles in order, and the worked examples."""

    principles: tuple[Principle, ...]
    examples: tuple[WorkedExample, ...]

    def named_in(self, thoughts: str) -> list[str]:
        """The names of the principles that thoughts name."""
        return [p.name for p in self.principles if _reference(p).search(thoughts)]


def read_guidance(settings: AnswersSection) -> Guidance:
    """The principles and examples that config.self_align.answers names, checked."""
    principles = read_principles(settings.principles)
    return Guidance(principles, read_examples(settings.examples, principles))


def read_principles(source: str) -> tuple[Principle, ...]:
    """The principles of a .yaml file, or stage 2's bundled ones; see data/principles.py."""
    return principles_of(source, _BUNDLED / "principles.yaml")


def read_examples(source: str, principles: tuple[Principle, ...]) -> tuple[WorkedExample, ...]:
    """The worked examples of a .yaml file, or the bundled ones. Raises UserError, with file and
    line, for an empty field, and for thoughts that name no principle."""
    examples = []
    for where, item in listed(
        source, _BUNDLED / "examples.yaml", "instruction, thoughts and answer"
    ):
        texts = [text_field(item, name, where) for name in ("instruction", "thoughts", "answer")]
        example = WorkedExample(*texts)
        if not Guidance(principles, ()).named_in(example.thoughts):
            raise UserError(
                f"{where}: the thoughts name none of the {len(principles)} principles; name those "
                f"that apply by their names, such as {principles[-1].name!r}, or bring examples "
                "for your principles in config.self_align.answers.examples"
            )
        examples.append(example)
    return tuple(examples)


def _reference(principle: Principle) -> re.Pattern:
    return re.compile(rf"(?<![\w-]){re.escape(principle.name)}(?![\w-])", re.IGNORECASE)
