"""Conversations as text: the one place where a chat template runs."""

from typing import Any

from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.models.tokenizer import chat_template_of


def rendered(tokenizer: Any, messages: list[Message], **options: Any) -> str:
    """The conversation as the tokenizer's chat template writes it. `options` are
    add_generation_prompt and the template's own. Raises UserError where it refuses it."""
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, chat_template=chat_template_of(tokenizer), **options
        )
    except Exception as error:  # a template may raise whatever Python can
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise UserError(
            f"the chat template refuses a conversation ({reason}); its last turn is "
            f"{messages[-1]['content'][:60]!r}"
        ) from None
