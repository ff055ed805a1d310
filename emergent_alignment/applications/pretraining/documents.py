"""Raw text as conversations have it: a document's beginning is a prompt, what follows an answer."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emergent_alignment.applications.pretraining.corpus import Document
from emergent_alignment.applications.pretraining.windows import Windows
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.pieces import tokens_of
from emergent_alignment.errors import UserError

DOCUMENT = "document"
PASSAGE = "passage"
_BEFORE = ("\n", ".", "a")  # one of them does not join what follows
_CUT = "\ufffd"  # what a cut letter, or all of a run of bytes with one in it, is decoded to
_WORD_TOKENS = 16  # of the word that a window cuts, at most so many are left out


@dataclass(frozen=True)
class RawText(Chat):
    """A chat that also knows documents: a message of the role `document` is the beginning of a
    text, which the model is to continue, and `passage` what stands further in, from any place
    on. As a prompt it stands as it is, without a template; in a review it is quoted like any other
    conversation, by the template there is (a model without one has the plain one of
    models/plain_text.py)."""

    def prompt_tokens(self, messages: list[Message], **options: bool) -> list[int]:
        if messages[-1]["role"] not in (DOCUMENT, PASSAGE):
            return super().prompt_tokens(messages, **options)
        return self._tokens(messages[-1]["role"], messages[-1]["content"])

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
        control = {*self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id}
        return [
            self._spelled(text) if control.intersection(tokens) else tokens
            for text, tokens in zip(texts, encoded["input_ids"])
        ]

    def _spelled(self, text: str) -> list[int]:
        """Token ids of a text whose letters are a special token to the vocabulary itself, as to
        SentencePiece's unigram, kept apart."""
        (message,), letter = self._as_text([{"role": DOCUMENT, "content": text}])
        return tokens_of(self.tokenizer, message["content"], letter)

    def document_tokens(self, documents: list[Document]) -> list[list[int]]:
        """Token ids of documents, each with its end."""
        if not documents:
            return []
        rows = self.text_tokens([document.text for document in documents])
        return [[*tokens, self.end_of_document] for tokens in rows]

    def prefix(self, windows: Windows, row: int, max_tokens: int) -> list[Message]:
        """The prompt that a window gives: the first half of its longest piece of a document, at
        most `max_tokens` of it. A window that begins within a text gives a passage; where it cuts
        a word into other tokens than the text would have by itself, these few are left out."""
        segments = windows.segments[row]
        longest = np.bincount(segments[segments > 0]).argmax()
        piece = windows.tokens[row, segments == longest]
        kept = piece[: max(min(len(piece) // 2, max_tokens), 1)].tolist()
        for role, first in ((DOCUMENT, 0), *((PASSAGE, i) for i in range(_WORD_TOKENS))):
            text = self._as_it_was(role, kept[first:])
            if text:
                return [{"role": role, "content": text}]
        # An empty document has an end and nothing else: the model begins a line of its own.
        return [{"role": DOCUMENT, "content": self._text(DOCUMENT, kept) or "\n"}]

    def _as_it_was(self, role: str, tokens: list[int]) -> str:
        """The text of the tokens, without the last ones if they are not its own; "" where those
        would be more than half."""
        for size in range(len(tokens), len(tokens) // 2, -1):
            text = self._text(role, tokens[:size])
            own = self._tokens(role, text)
            if own == tokens[:size]:
                return text
            if own[:1] != tokens[:1] and _CUT not in text:
                break
        return ""

    def _tokens(self, role: str, text: str) -> list[int]:
        """Token ids of a document's beginning, or of a passage behind a letter that it does not
        join."""
        if role == DOCUMENT:
            return self.text_tokens([text])[0]
        for before in _BEFORE:
            known, whole = self.text_tokens([before, before + text])
            if whole[: len(known)] == known:
                return whole[len(known) :]
        return self.text_tokens([text])[0]

    def _text(self, role: str, tokens: list[int]) -> str:
        before = [] if role == DOCUMENT else self.text_tokens([_BEFORE[0]])[0]
        known, text = (
            self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row in (before, before + tokens)
        )
        return text[len(known) :]


def read_raw_text(tokenizer: Any, source: str) -> RawText:
    """`read_chat` with documents. Raises UserError for a tokenizer that ends no text."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"{source}: the tokenizer has no end token, so documents cannot end")
    chat = read_chat(tokenizer, source)
    return RawText(**{field.name: getattr(chat, field.name) for field in fields(chat)})
