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
_START, _END = (rf"(?:{'|'.join(map(re.escape, marks))})" for marks in zip(*_PAIRS))
# What a text is about ends nothing: what stands in quotation marks, or in code, on a line, and what
# is opened within a line and closed there.
_QUOTED = re.compile(
    r"\"[^\"\n]*\"|`[^`\n]*`|(?<!\w)[rbf]{0,2}'[^'\n]*'(?!\w)"
    rf"|(?<=\S)[ \t]*{_START}[^\n]{{0,200}}?{_END}",
    re.IGNORECASE,
)
_ENDS = re.compile(_END, re.IGNORECASE)


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer). A block that is never closed is reasoning to its end; some chat
    templates open the block themselves, so that a text may hold its end alone."""
    reasonings, rest = [], text
    while block := _BLOCK.match(rest):
        reasonings.append(next(part for part in block.groups() if part is not None).strip())
        rest = rest[block.end() :].strip()
    if reasonings:
        return "\n\n".join(filter(None, reasonings)), rest
    end = _ENDS.search(_QUOTED.sub(lambda quoted: " " * len(quoted[0]), text))
    return (text[: end.start()].strip(), text[end.end() :].strip()) if end else ("", text)


def with_reasoning(reasoning: str, answer: str) -> str:
    """One text of both, as reasoning models write it."""
    return f"<think>\n{reasoning}\n</think>\n\n{answer}" if reasoning.strip() else answer
