"""What a chat template does around an assistant's answer, learnt from what it writes."""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from emergent_alignment.data.messages import REASONING
from emergent_alignment.errors import UserError

PROBE, ANSWER_PROBE = "Zq7probe", "Zq7answer"
ASKED = {"role": "user", "content": "Hello"}
# How templates are told that the answer is to come without thinking; others ignore it.
NO_THINKING = {"enable_thinking": False, "thinking": False}
_OPENED = re.compile(r"<think>\s*\Z")
_BLOCK = re.compile(r"(?:<think>\s*)?</think>\s*\Z")
_TAIL = re.compile(r"(?:<think>\s*)?(?:</think>)?\s*\Z")
_CLOSED = "<think>\n\n</think>\n\n"

Render = Callable[..., str]


@dataclass(frozen=True)
class Turn:
    """An assistant's turn as a template writes it when rendered with `options`.

    prompt   the rendering of `ASKED` with its generation prompt
    header   what stands between such a rendering and the reply: the beginning of the turn where
             the template does not write it, a closed think block where it writes none itself
    opening  what a reply begins with before the answer: a space, or a closed think block
    after    what the template writes behind an answer that is the last turn
    """

    prompt: str
    header: str
    opening: str
    after: str
    options: Mapping[str, bool] = field(default_factory=dict, hash=False)

    @property
    def beginning(self) -> str:
        """What stands before a reply to `ASKED`."""
        return self.prompt + self.header

    @property
    def opened(self) -> str:
        """The think block that the prompt opens, which an answer does not open again."""
        opening = _OPENED.search(self.prompt)
        return opening[0] if opening else ""

    @property
    def context(self) -> str:
        """What stands before any reply: of a conversation's last words whatever is constant."""
        return self.beginning[max(self.beginning.rfind(ASKED["content"]), 0) :]


def read_turn(render: Render, options: Mapping[str, bool]) -> Turn:
    """How replies follow the prompts that the template writes with these options."""
    prompt = render([ASKED], add_generation_prompt=True, **options)
    whole = render([ASKED, {"role": "assistant", "content": PROBE}], **options)
    start = whole.rfind(PROBE)
    if start < 0:
        what = "leaves the assistant's answer out (as one for images may do with plain text)"
        if PROBE.lower() in whole.lower():
            what = "changes the letters of the assistant's answer"
        raise UserError(f"its chat template {what}")
    before, after = whole[:start], whole[start + len(PROBE) :]
    opened = _OPENED.search(prompt)
    if before.startswith(prompt):
        between = before[len(prompt) :]
    elif _stem(before) == _stem(prompt):
        # Reasoning models open a block for what they say, and show said answers without it.
        between = _closing(opened[0]) if opened else ""
    else:
        raise UserError(
            "its chat template writes a conversation in another way once its answer is there, so "
            "that no prompt leads to the answer"
        )
    writes_prompts = prompt != render([ASKED], add_generation_prompt=False, **options)
    header, opening = ("", between) if writes_prompts else _header(between)
    return Turn(prompt, header, opening, after, dict(options))


def reasoning_field(render: Render) -> str:
    """The field of an assistant's message that the template shows as its reasoning; "" where it
    shows none."""
    for name in REASONING:
        message = {"role": "assistant", "content": "So.", name: PROBE}
        with contextlib.suppress(UserError):
            if PROBE in render([ASKED, message]):
                return name
    return ""


def without_thinking(turn: Turn) -> Turn:
    """The turn of one who does not think first: whatever an answer opens with stands in the
    prompt but for the space before a word, and a block that the prompt opens is closed."""
    words = turn.opening.rstrip(" \t")
    header, rest = turn.header + words, turn.opening[len(words) :]
    unclosed = _OPENED.search(turn.prompt + header)
    if unclosed:
        header, rest = header + _closing(unclosed[0]), ""
    return Turn(turn.prompt, header, rest, turn.after, turn.options)


def _header(between: str) -> tuple[str, str]:
    """What a template without generation prompts writes before an answer, as the beginning of
    the turn and the opening of the answer."""
    block = _BLOCK.search(between)
    cut = block.start() if block else len(between.rstrip(" \t"))
    return between[:cut], between[cut:]


def _stem(text: str) -> str:
    """A prompt without the think block that it ends with, open or closed."""
    return _TAIL.sub("", text).rstrip()


def _closing(opened: str) -> str:
    """What closes a think block that begins with `opened` (and holds nothing)."""
    return _CLOSED[len(opened) :] if _CLOSED.startswith(opened) else "</think>\n\n"
