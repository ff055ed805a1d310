"""What the model is asked for. The answer is begun for it, as a list: models that only continue
text, and small ones that follow few instructions, then write the next entry.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.self_align.instructions.sources import HardKind

SELF_INSTRUCT_PROMPT = (
    "Continue this list of tasks for an assistant that reads and writes text and nothing else. "
    "Each task can be understood by itself, and differs from the others in its subject and in "
    "what has to be done. Write the tasks only, not their solutions."
)
TOPICS = (
    "Some questions are hard for an assistant: {description}. Name many different subjects of such "
    "questions, one a line, each in one to three words."
)
RED_TEAM_PROMPT = (
    "Some questions are hard for an assistant: {description}. Write different questions of this "
    "kind, one a line. Subject: {topic}"
)
RED_TEAM_AGAIN = "Write more questions of the same kind. Subject: {topic}"


@dataclass(frozen=True)
class Begun:
    """A conversation and the list with which its answer begins; `number` is that of the entry
    that the model writes first."""

    messages: tuple[Message, ...]
    entries: tuple[str, ...]

    @property
    def number(self) -> int:
        return len(self.entries) + 1

    def tokens(self, chat: Chat) -> list[int]:
        """The conversation as the chat template writes it, and the begun answer."""
        begun = _listed(self.entries, chat) + f"{self.number}."
        return chat.asking_tokens(list(self.messages), begun=begun)

    def whole(self, answer: str) -> str:
        """The list as it goes on with what the model wrote."""
        return f"{self.number}. {answer}"


def self_instruct(examples: Sequence[str]) -> Begun:
    """More instructions, of any kind."""
    return Begun(_user(SELF_INSTRUCT_PROMPT), tuple(examples))


def ask_topics(kind: HardKind, known: Sequence[str]) -> Begun:
    """More topics of a kind; those that are `known` stand in the list already."""
    return Begun(_user(TOPICS.format(description=kind.description)), tuple(known))


def ask_questions(kind: HardKind, topic: str) -> Begun:
    """Questions of a kind about a topic, after the kind's example about another one."""
    shown = RED_TEAM_PROMPT.format(description=kind.description, topic=kind.topic)
    messages = (
        *_user(shown),
        {"role": "assistant", "content": f"1. {kind.example}"},
        *_user(RED_TEAM_AGAIN.format(topic=topic)),
    )
    return Begun(messages, ())


def prompt_sentences() -> list[str]:
    """What the prompts themselves say: models repeat it as if it were an entry of the list."""
    prompts = (SELF_INSTRUCT_PROMPT, TOPICS, RED_TEAM_PROMPT, RED_TEAM_AGAIN)
    return [sentence for prompt in prompts for sentence in re.split(r"(?<=[.:]) ", prompt)]


def _listed(entries: Sequence[str], chat: Chat) -> str:
    return "".join(
        f"{number}. {chat.without_control(entry)}\n" for number, entry in enumerate(entries, 1)
    )


def _user(text: str) -> tuple[Message]:
    return ({"role": "user", "content": text},)
