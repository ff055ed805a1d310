"""Raw text as conversations have it: a document's beginning is a prompt, what follows an answer."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emergent_alignment.applications.pretraining.corpus import Document
from emergent_alignment.applications.pretraining.windows import Windows
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError

DOCUMENT = "document"


@dataclass(frozen=True)
class RawText(Chat):
    """A chat that also knows documents: a message of the role `document` is the beginning of a
    text, which the model is to continue. As a prompt it stands as it is, without a template; in
    a review it is quoted like any other conversation, by the template there is (a model without
    one has the plain one of models/plain_text.py)."""

    def prompt_tokens(self, messages: list[Message], **options: bool) -> list[int]:
        if messages[-1]["role"] != DOCUMENT:
            return super().prompt_tokens(messages, **options)
        return self.text_tokens([messages[-1]["content"]])[0]

    def as_drafted(self, tokens: list[int]) -> list[int]:
        """A document is continued by what was written, which no template opens."""
        return tokens

    @property
    def end_of_document(self) -> int:
        """What stands behind every document: the tokenizer's own end token."""
        return self.tokenizer.eos_token_id

    def text_tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts as they stand. One that spells out a special token is text."""
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return encoded["input_ids"]

    def document_tokens(self, documents: list[Document]) -> list[list[int]]:
        """Token ids of documents, each with its end."""
        if not documents:
            return []
        rows = self.text_tokens([document.text for document in documents])
        return [[*tokens, self.end_of_document] for tokens in rows]

    def prefix(self, windows: Windows, row: int, max_tokens: int) -> list[Message]:
        """The prompt that a window gives: the first half of its longest piece of a document, at
        most `max_tokens` of it."""
        segments = windows.segments[row]
        longest = np.bincount(segments[segments > 0]).argmax()
        piece = windows.tokens[row, segments == longest]
        kept = piece[: max(min(len(piece) // 2, max_tokens), 1)].tolist()
        text = self.tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        # An empty document has an end and nothing else: the model begins a line of its own.
        return [{"role": DOCUMENT, "content": text or "\n"}]


def read_raw_text(tokenizer: Any, source: str) -> RawText:
    """`read_chat` with documents. Raises UserError for a tokenizer that ends no text."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{source}: the tokenizer has no end token, so documents cannot end")
    chat = read_chat(tokenizer, source)
    return RawText(**{field.name: getattr(chat, field.name) for field in fields(chat)})
