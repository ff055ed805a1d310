"""What a reasoning model writes: a <think> block, then the answer.

The conscience reviews both; only the answer is said.
"""

import re

_BLOCK = re.compile(
    r"\s*(?:<think>(.*?)(?:</think>|\Z)|<thinking>(.*?)(?:</thinking>|\Z)"
    r"|\[THINK\](.*?)(?:\[/THINK\]|\Z))",
    re.DOTALL,
)
_MARK = r"(?:</think>|</thinking>|\[/THINK\])"
# Between quotation marks it is what a text is about, and ends nothing.
_END = re.compile(rf"(?<![\"'`]){_MARK}|{_MARK}(?![\"'`])")


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer). A block that is never closed is reasoning to its end; some chat
    templates open the block themselves, so that a text may hold its end alone."""
    reasonings, rest = [], text
    while block := _BLOCK.match(rest):
        reasonings.append(next(part for part in block.groups() if part is not None).strip())
        rest = rest[block.end() :].strip()
    if reasonings:
        return "\n\n".join(filter(None, reasonings)), rest
    end = _END.search(text)
    return (text[: end.start()].strip(), text[end.end() :].strip()) if end else ("", text)


def with_reasoning(reasoning: str, answer: str) -> str:
    """One text of both, as reasoning models write it."""
    return f"<think>\n{reasoning}\n</think>\n\n{answer}" if reasoning.strip() else answer
