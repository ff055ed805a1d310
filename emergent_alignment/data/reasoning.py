"""What a reasoning model writes: a <think> block, or one of another name, then the answer.

The conscience reviews both; only the answer is said.
"""

import re

# How families write the two ends of what they think: tags of these names, and marks of their own.
_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "seed:think")
_PAIRS = [(f"<{name}>", f"</{name}>") for name in _NAMES]
_PAIRS += [("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")]
_PAIRS += [("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|channel>thought", "<channel|>")]
_BLOCKS = "|".join(rf"{re.escape(start)}(.*?)(?:{re.escape(end)}|\Z)" for start, end in _PAIRS)
_BLOCK = re.compile(rf"\s*(?:{_BLOCKS})", re.DOTALL | re.IGNORECASE)
_MARK = rf"(?:{'|'.join(re.escape(end) for _, end in _PAIRS)})"
# Between quotation marks it is what a text is about, and ends nothing.
_END = re.compile(rf"(?<![\"'`]){_MARK}|{_MARK}(?![\"'`])", re.IGNORECASE)


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
