"""Conversations as the model itself writes them: its own chat template, and nothing else.

The prompt is everything up to where the assistant's answer starts; the response is the
answer's tokens and the end token, as they stand in the whole. No BOS is put before a response.
What messages and answers say is text: a special token that they spell out stays its letters.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from emergent_alignment.data.messages import Message
from emergent_alignment.data.pieces import (
    kept_apart,
    spellings,
    tokens_after,
    tokens_of,
    unused_letter,
)
from emergent_alignment.data.reasoning import split_reasoning, with_reasoning
from emergent_alignment.data.rendering import check_shown, letters, render
from emergent_alignment.data.turn_marks import turn_marks, without_turn_marks
from emergent_alignment.data.turns import (
    ANSWER_PROBE,
    ASKED,
    NO_THINKING,
    PROBE,
    Render,
    Turn,
    read_turn,
    reasoning_field,
    without_thinking,
)
from emergent_alignment.errors import UserError
from emergent_alignment.models.generation_config import end_tokens_of
from emergent_alignment.models.tokenizer import chat_template_of, require_chat_template

_THINK_TAGS = ("<think>", "</think>")


@dataclass(frozen=True)
class Chat:
    """A tokenizer with what its chat template does: `end_token` closes an answer,
    `end_tokens` are all ids that end a generation, `trail` is what the template puts between an
    answer and its end token (a space for some families, or words), `drafted` is how an answer
    follows a prompt, `direct` how it does where the model is asked not to think first, and
    `reasoning` the field of a message that the template shows as what was thought ("" where it
    shows none)."""

    tokenizer: Any
    end_token: int
    end_tokens: tuple[int, ...]
    trail: str
    drafted: Turn
    direct: Turn
    reasoning: str

    @property
    def shows_reasoning(self) -> bool:
        """Whether the model's template knows of reasoning before an answer."""
        return bool(self.reasoning) or "</think>" in (chat_template_of(self.tokenizer) or "")

    @property
    def lead(self) -> str:
        """What the template puts between the generation prompt and the answer where that is no
        word (a space for some families)."""
        return self.drafted.opening if self.drafted.opening.isspace() else ""

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The spellings of the tokens that open and close turns: the special ones, and those that
        the template writes around turns (DeepSeek's are not said to be special)."""
        written = "".join(self._conversations)
        added = self.tokenizer.added_tokens_decoder.values()
        marks = (token for token in added if token.special or token.content in written)
        return tuple(token.content for token in marks if _is_mark(token))

    def prompt_text(self, messages: list[Message], **options: bool) -> str:
        """The rendered conversation, ready for the assistant's next answer. Raises UserError
        where the chat template refuses it (some know no system turn, or want turns to alternate) or
        leaves a turn out. `options` are the template's own, such as enable_thinking=False; one that
        does not know them is not changed by them.
        """
        return self._rendered(messages, options) + self.drafted.header

    def prompt_tokens(self, messages: list[Message], **options: bool) -> list[int]:
        """Token ids of `prompt_text`; special tokens come from the template alone."""
        messages, letter = self._as_text(messages)
        return tokens_of(self.tokenizer, self.prompt_text(messages, **options), letter)

    def asking_tokens(self, messages: list[Message], begun: str = "") -> list[int]:
        """Token ids of a conversation up to where the model replies at once: thinking is switched
        off where the template can, and else its block stands there closed. `begun` is the
        beginning of the reply that is written for the model."""
        messages, letter = self._as_text(messages)
        opening = self.direct.opening if begun else ""
        return tokens_of(self.tokenizer, self._asking_text(messages) + opening + begun, letter)

    def next_turn_tokens(self, request: str) -> list[int]:
        """Token ids of what the template writes after an answer when the user goes on with
        `request`, up to where the model replies at once. They begin with the answer's end token,
        where the template writes one."""
        answered = [ASKED, {"role": "assistant", "content": PROBE}]
        messages, letter = self._as_text([*answered, {"role": "user", "content": request}])
        text = self._asking_text(messages)
        start = text.find(PROBE)
        if start < 0:
            raise UserError("the chat template leaves out what the assistant said before")
        end = start + len(PROBE)
        end += len(self.trail) if text.startswith(self.trail, end) else 0
        return tokens_after(self.tokenizer, text[start:end], text[end:], letter)

    def without_control(self, text: str) -> str:
        """The text with the spellings of special tokens and of the template's other turn marks
        broken up: quoted in a prompt, it can close no turn."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        return without_turn_marks(text, self._turn_marks, normalizer)

    def response_tokens(self, answer: str, *, ended: bool = True) -> list[int]:
        """Token ids of an answer as they follow `prompt_tokens`, and of its end token where it
        ended. An answer that spells out a special token is text: it can end no turn."""
        if not ended:
            return self._answered(self.drafted, answer, "")
        # Within the whole: some tokenizers give the blanks before an end token to it.
        ending = self.tokenizer.convert_ids_to_tokens(self.end_token)
        tokens = self._answered(self.drafted, answer, self.trail + ending)
        if tokens[-1:] == [self.end_token]:
            return tokens
        return [*self._answered(self.drafted, answer, self.trail), self.end_token]

    def written_tokens(self, text: str, *, ended: bool) -> list[int]:
        """Token ids of what a model wrote on behind `prompt_tokens`, every letter of it as it
        stands, and the end token where it ended. A special token that it spells out is text."""
        messages, letter = self._as_text([{"role": "assistant", "content": text}])
        written = messages[0]["content"]
        tokens = tokens_after(self.tokenizer, self.drafted.context, written, letter)
        return [*tokens, self.end_token] if ended else tokens

    def reply_tokens(self, reply: str) -> list[int]:
        """Token ids of a reply as they follow `asking_tokens`, without an end token."""
        return self._answered(self.direct, reply, "")

    def word_tokens(self, text: str) -> list[int]:
        """Token ids of a text where a reply to `asking_tokens` begins: as it stands, whatever the
        template would put before it."""
        return tokens_after(self.tokenizer, self.direct.context, text)

    def as_drafted(self, tokens: list[int]) -> list[int]:
        """The tokens of a reply to `asking_tokens` as an answer that follows `prompt_tokens`."""
        return self._opening + tokens if tokens else tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands, without any token added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: list[int]) -> str:
        """The answer that response tokens spell, without end tokens, outer blanks, and the
        template's own empty think block; what was thought before it in a block."""
        kept = [token for token in tokens if token not in self.end_tokens]
        if self._opening and kept[: len(self._opening)] == self._opening:
            kept = kept[len(self._opening) :]
        thought, said = self._apart(kept)
        answer = self._without_marks(said)
        if tokens[-1:] != kept[-1:]:  # it has ended
            answer = answer.removesuffix(self.trail.strip()).rstrip()
        return with_reasoning(self._without_marks(thought), answer)

    def _without_marks(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def _apart(self, tokens: list[int]) -> tuple[list[int], list[int]]:
        """What was thought, and what is said, where special tokens alone tell them apart."""
        opening, between = self._channels
        start = len(opening)
        if not opening or tokens[:start] != opening:
            return [], tokens
        for end in range(start, len(tokens) - len(between) + 1):
            if tokens[end : end + len(between)] == between:
                return tokens[start:end], tokens[end + len(between) :]
        return tokens[start:], []

    def _asking_text(self, messages: list[Message]) -> str:
        return self._rendered(messages, self.direct.options) + self.direct.header

    def _rendered(self, messages: list[Message], options: Mapping[str, bool]) -> str:
        fields = [self.fields(message) for message in messages]
        text = render(self.tokenizer, fields, add_generation_prompt=True, **options)
        check_shown(messages, text)
        return text

    def fields(self, message: Message) -> Message:
        """The message as the template takes it: with what was thought in a field of its own, where
        it has one."""
        content = message["content"]
        if message["role"] != "assistant" or not self.reasoning:
            return message
        if not content.lstrip().startswith(_THINK_TAGS[0]) or _THINK_TAGS[1] not in content:
            return message
        thought, answer = split_reasoning(content)
        return message | {"content": answer, self.reasoning: thought} if thought else message

    def _answered(self, turn: Turn, answer: str, trail: str) -> list[int]:
        messages, letter = self._as_text([{"role": "assistant", "content": answer}])
        text = self._response_text(turn, messages[0]) + trail
        return tokens_after(self.tokenizer, turn.context, text, letter)

    def _response_text(self, turn: Turn, message: Message) -> str:
        """The answer as the template writes it, up to where it ends."""
        answer = message["content"]
        try:
            whole = render(self.tokenizer, [ASKED, self.fields(message)], **turn.options)
        except UserError:  # such as an empty one
            whole = ""
        if whole.startswith(turn.beginning) and whole.endswith(turn.after):
            written = whole[len(turn.beginning) : len(whole) - len(turn.after)]
            shown = letters(written)
            if all(letters(part) in shown for part in split_reasoning(answer)):
                return written
        # The template shows no such answer after its prompt, or not all of it (its reasoning).
        if not any(tag in answer for tag in _THINK_TAGS):
            return turn.opening + answer
        return answer.lstrip().removeprefix(turn.opened)

    def _as_text(self, messages: list[Message]) -> tuple[list[Message], str]:
        """The messages with a letter within each spelling of a special token, and the letter.
        A model's own think tags are its tokens."""
        texts = [message["content"] for message in messages]
        letter, normalizer = unused_letter(texts), self.tokenizer.backend_tokenizer.normalizer
        patterns = [self._control[message["role"] == "assistant"] for message in messages]
        apart = [
            kept_apart(text, pattern, letter, normalizer) if pattern else text
            for text, pattern in zip(texts, patterns)
        ]
        if apart == texts:
            return messages, ""
        return [m | {"content": text} for m, text in zip(messages, apart)], letter

    @cached_property
    def _opening(self) -> list[int]:
        words = self.drafted.opening.rstrip(" \t")
        return tokens_after(self.tokenizer, self.drafted.context, words) if words else []

    @cached_property
    def _channels(self) -> tuple[list[int], list[int]]:
        """What a reply opens with that says first what it thinks, and what stands between that and
        its answer; nothing where letters tell the two apart, which decoding leaves in."""
        thinking = {"role": "assistant", "content": ANSWER_PROBE, self.reasoning: PROBE}
        with contextlib.suppress(UserError):
            text = render(self.tokenizer, [ASKED, thinking]) if self.reasoning else ""
            opening, thought, rest = text.removeprefix(self.drafted.beginning).partition(PROBE)
            between, said, _ = rest.partition(ANSWER_PROBE)
            marks = [mark for mark in self.control_texts if mark not in _THINK_TAGS]
            in_both = all(any(mark in part for mark in marks) for part in (opening, between))
            if thought and said and in_both and text.startswith(self.drafted.beginning):
                return self.encode(opening), self.encode(between)
        return [], []

    @cached_property
    def _control(self) -> tuple[re.Pattern | None, re.Pattern | None]:
        """What finds special tokens in what others say, and in what the assistant says."""
        own = [token for token in self.control_texts if token not in _THINK_TAGS]
        return spellings(self.control_texts), spellings(own)

    @cached_property
    def _turn_marks(self) -> re.Pattern | None:
        between = [part for text in self._conversations for part in text.split(PROBE)[1:]]
        return turn_marks(between, self.control_texts)

    @cached_property
    def _conversations(self) -> list[str]:
        """What the template writes around turns that say PROBE, ready for an answer."""
        turns = [{"role": role, "content": PROBE} for role in ("user", "assistant", "user")]
        written = []
        for messages in (turns, [{"role": "system", "content": PROBE}, turns[0]]):
            with contextlib.suppress(UserError):  # one that knows no system turn
                written.append(self.prompt_text(messages))
        return written


def read_chat(tokenizer: Any, source: str = "the tokenizer") -> Chat:
    """Learn from the chat template itself how an answer starts and which token ends it.

    Raises UserError where there is no chat template, one that fails, or one that shows no answers,
    and where nothing ends an answer.
    """
    require_chat_template(tokenizer, source)
    write = partial(render, tokenizer)
    try:
        drafted = direct = read_turn(write, {})
    except UserError as error:
        reason = _wants_tools(write) or str(error)
        remedy = "give another one in config.model.chat_template"
        raise UserError(f"{source}: {reason}; {remedy}") from None
    with contextlib.suppress(UserError):  # one that insists on thinking
        direct = read_turn(write, NO_THINKING)
    after = tokenizer.encode(drafted.after, add_special_tokens=False)
    # Beside bos, eos, …: a base model's tokenizer may name another end token than its template.
    added = tokenizer.added_tokens_decoder.items()
    marks = {*tokenizer.all_special_ids, *(token for token, kind in added if _is_mark(kind))}
    end_token = next((token for token in after if token in marks), tokenizer.eos_token_id)
    if end_token is None:
        raise UserError(
            f"{source}: neither its chat template nor its tokenizer ends an answer with a token of "
            "its own; name one as eos_token in tokenizer_config.json"
        )
    end_tokens = {end_token, *end_tokens_of(tokenizer)}
    trail, ended, _ = drafted.after.partition(tokenizer.convert_ids_to_tokens(end_token))
    trail = trail if ended else ""
    ends = tuple(sorted(end_tokens))
    direct = without_thinking(direct)
    return Chat(tokenizer, end_token, ends, trail, drafted, direct, reasoning_field(write))


def _is_mark(token: Any) -> bool:
    """Whether an added token may open or close turns: a special one, or one that is no word, nor
    one that stands around what is thought."""
    signs = re.search(r"[^\w\s]", token.content)
    return token.special or (bool(signs) and token.content not in _THINK_TAGS)


def _wants_tools(write: Render) -> str:
    try:
        write([ASKED])
    except UserError:
        with contextlib.suppress(UserError):
            write([ASKED], tools=[])
            return "its chat template does not do without tools, of which there are none here"
    return ""
