"""Conversations as the model itself writes them: its own chat template, and nothing else.

The prompt is everything up to where the assistant's answer starts; the response is the
answer's tokens and the end token. No BOS is put before a response.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.models.generation_config import end_tokens_of
from emergent_alignment.models.tokenizer import require_chat_template

_PROBE = "Zq7probe"


@dataclass(frozen=True)
class Chat:
    """A tokenizer with what its chat template does: `end_token` closes an answer,
    `end_tokens` are all ids that end a generation, `lead` is what the template puts
    between the generation prompt and the answer (a space for some families)."""

    tokenizer: Any
    end_token: int
    end_tokens: tuple[int, ...]
    lead: str

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The spellings of the special tokens: what opens and closes turns."""
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(token.content for token in added if token.special)

    def prompt_text(self, messages: list[Message], **options: bool) -> str:
        """The rendered conversation, ready for the assistant's next answer. Raises UserError
        where the chat template refuses it (some know no system turn, or want turns to alternate).
        `options` are the template's own, such as enable_thinking=False; one that does not know
        them is not changed by them.
        """
        return _rendered(self.tokenizer, messages, add_generation_prompt=True, **options)

    def prompt_tokens(self, messages: list[Message], **options: bool) -> list[int]:
        """Token ids of `prompt_text`; special tokens come from the template alone."""
        return self.encode(self.prompt_text(messages, **options))

    def without_control(self, text: str) -> str:
        """The text with the spellings of special tokens broken up: quoted in a prompt, it can
        close no turn."""
        for control in self.control_texts:
            text = text.replace(control, f"{control[:1]} {control[1:]}")
        return text

    def response_tokens(self, answer: str, *, ended: bool = True) -> list[int]:
        """Token ids of an answer, and of its end token where it ended. An answer that spells
        out a special token is text: it can end no turn."""
        tokens = self.tokenizer.encode(
            self.lead + answer, add_special_tokens=False, split_special_tokens=True
        )
        return tokens + [self.end_token] if ended else tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands, without any token added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: list[int]) -> str:
        """The answer that response tokens spell, without end tokens and outer blanks."""
        kept = [token for token in tokens if token not in self.end_tokens]
        return self.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).strip()


def read_chat(tokenizer: Any, source: str = "the tokenizer") -> Chat:
    """Learn from the chat template itself how an answer starts and which token ends it.

    Raises UserError where there is no chat template, or one that shows no answers.
    """
    require_chat_template(tokenizer, source)
    messages = [{"role": "user", "content": "Hello"}]
    prompt = _rendered(tokenizer, messages, add_generation_prompt=True)
    answered = [*messages, {"role": "assistant", "content": _PROBE}]
    whole = _rendered(tokenizer, answered)
    start = whole.rfind(_PROBE)
    if start < 0:
        raise UserError(
            f"{source}: its chat template leaves the assistant's answer out; give another one"
        )
    lead = whole[len(prompt) : start] if whole.startswith(prompt) else ""
    # A lead with words in it is an empty reasoning block or the like: the answer's own matter.
    lead = lead if lead.strip() == "" else ""
    after = tokenizer.encode(whole[start + len(_PROBE) :], add_special_tokens=False)
    # Beside bos, eos, …: a base model's tokenizer may name another end token than its template.
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(token for token, kind in added if kind.special)}
    end_token = next((token for token in after if token in special), tokenizer.eos_token_id)
    end_tokens = {end_token, *end_tokens_of(tokenizer)} - {None}
    return Chat(tokenizer, end_token, tuple(sorted(end_tokens)), lead)


def _rendered(tokenizer: Any, messages: list[Message], **options: bool) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except TemplateError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the chat template refuses a conversation ({reason}); its last turn is "
            f"{messages[-1]['content'][:60]!r}"
        ) from None
