"""Examples as token ids, cut to what a batch holds."""

from dataclasses import dataclass

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.errors import UserError


@dataclass(frozen=True)
class Tokenized:
    """An example as token ids: prompt, target (end token included), and whether each was cut."""

    prompt: list[int]
    target: list[int]
    prompt_cut: bool
    target_cut: bool


def tokenize(example: Example, chat: Chat, max_prompt: int, max_response: int) -> Tokenized:
    """Render and cut: a prompt that is too long keeps its end, an answer keeps its start (and
    loses its end token, since it did not end there). A target that was cut before has none. Raises
    UserError with the row's place for one that the model's template does not show."""
    try:
        if example.reasoned and not chat.shows_reasoning:
            raise UserError(
                "the model's chat template shows no reasoning, which the row has in a field of its "
                "own; write it into the content, or remove it"
            )
        prompt = chat.prompt_tokens(example.messages)
        target = chat.response_tokens(example.target, ended=example.ended)
    except UserError as error:
        raise UserError(f"{example.where}: {error}" if example.where else str(error)) from None
    return Tokenized(
        prompt[-max_prompt:],
        target[:max_response],
        len(prompt) > max_prompt,
        len(target) > max_response,
    )
