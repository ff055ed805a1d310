"""Examples as token ids, cut to what a batch holds."""

from dataclasses import dataclass

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.sources import Example


@dataclass(frozen=True)
class Tokenized:
    """An example as token ids: prompt, target (end token included), and whether each was cut."""

    prompt: list[int]
    target: list[int]
    prompt_cut: bool
    target_cut: bool


def tokenize(example: Example, chat: Chat, max_prompt: int, max_response: int) -> Tokenized:
    """Render and cut: a prompt that is too long keeps its end, an answer keeps its start (and
    loses its end token, since it did not end there). A target that was cut before has none."""
    prompt = chat.prompt_tokens(example.messages)
    target = chat.response_tokens(example.target, ended=example.ended)
    return Tokenized(
        prompt[-max_prompt:],
        target[:max_response],
        len(prompt) > max_prompt,
        len(target) > max_response,
    )
