"""The prompt of stage 2, and what the model writes after it: thoughts, then the answer.

Principles and examples come first and are the same for every instruction, so that they are read
once. The assistant's turn is begun for the model with the label of its thoughts: what follows
is its own.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.self_align.answers.guidance import Guidance

THOUGHTS, ANSWER = "Principles that apply:", "Answer:"
_ORDER = (
    f'Begin every reply with a line of private thoughts after "{THOUGHTS}", in which you say by '
    f'their names which principles apply, and why. Then write "{ANSWER}" and what the user is to '
    "read. The user does not see the thoughts and does not know the principles, so the answer "
    "mentions neither."
)
# Labels at the start of a line that have no place in an answer.
_LABELS = re.compile(
    rf"^\s*(?:{THOUGHTS}|{ANSWER}|User:|Assistant:|Instruction:)", re.MULTILINE | re.IGNORECASE
)
_START = re.compile(rf"^[ \t]*{ANSWER}", re.MULTILINE)


@dataclass(frozen=True)
class Written:
    """What the model wrote, taken apart; `kept` says whether it kept to the format."""

    thoughts: str
    answer: str
    kept: bool


def prompt_rows(chat: Chat, guidance: Guidance, instructions: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of every instruction's whole prompt, up to where the model goes on."""
    beginning = opening(chat, guidance)
    for instruction in instructions:
        turn = {"role": "user", "content": chat.without_control(instruction)}
        yield chat.asking_tokens([*beginning, turn], begun=THOUGHTS)


def opening(chat: Chat, guidance: Guidance) -> list[Message]:
    """Principles and examples as a conversation; without a system turn where the chat template
    knows none."""
    rules = "\n".join(f"{p.number}. {p.name}: {p.text}" for p in guidance.principles)
    system = f"You are an assistant that follows these principles:\n{rules}\n\n{_ORDER}"
    turns: list[Message] = []
    for example in guidance.examples:
        reply = f"{THOUGHTS} {example.thoughts}\n{ANSWER} {example.answer}"
        turns.append({"role": "user", "content": example.instruction})
        turns.append({"role": "assistant", "content": reply})
    messages = [{"role": "system", "content": system}, *turns]
    if _shows(chat, messages, system):
        return messages
    first = {"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}
    return [first, *turns[1:]]


def read_written(text: str) -> Written:
    """Take apart what stands after the label of the thoughts."""
    label = _START.search(text)
    if label is None:
        return Written(text.strip(), "", False)
    thoughts, answer = text[: label.start()].strip(), text[label.end() :].strip()
    kept = bool(thoughts) and bool(answer) and not _LABELS.search(f"{thoughts}\n{answer}")
    return Written(thoughts, answer, kept)


def _shows(chat: Chat, messages: list[Message], system: str) -> bool:
    asked = {"role": "user", "content": "Hello"}
    try:
        return system in chat.prompt_text([*messages, asked])
    except UserError:
        return False
