"""What a reasoning model writes: a <think> block, then the answer.

The conscience reviews both; only the answer is said.
"""

import re

_BLOCK = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer). A block that is never closed is reasoning to its end; some chat
    templates open the block themselves, so that a text may hold its end alone."""
    block = _BLOCK.match(text)
    if block:
        return block[1].strip(), text[block.end() :].strip()
    before, closed, after = text.partition("</think>")
    return (before.strip(), after.strip()) if closed else ("", text)


def with_reasoning(reasoning: str, answer: str) -> str:
    """One text of both, as reasoning models write it."""
    return f"<think>\n{reasoning}\n</think>\n\n{answer}" if reasoning.strip() else answer
