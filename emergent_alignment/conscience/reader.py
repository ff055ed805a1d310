"""The frozen copy as a reader: what it has read of each row, kept as blocks of keys and values.

Nothing frozen is read twice. A prompt is read once; answers are read on top of it; a request (a
question, an order to rewrite) is read on top of what it is about.
"""

import warnings
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.conscience.evidence import Evidence, with_findings
from emergent_alignment.conscience.question import (
    Layout,
    defused,
    next_turn,
    quote,
    quote_beginning,
)
from emergent_alignment.data.batches import bucket, common_beginning, few_widths, pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.prefill import (
    Prompts,
    answer_log_probs,
    placed_prompts,
    prefill,
)
from emergent_alignment.generation.sampler import Sampler, Samples, decode
from emergent_alignment.generation.text import Answer, answers_of, beginning_of
from emergent_alignment.models.cache import Block, chosen_rows, cut_block
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import anywhere, largest
from emergent_alignment.parallel.rows import row_multiple, rows_held, to_devices, to_host

WIDTH_STEP = 32


@dataclass(frozen=True)
class Shown:
    """What the frozen copy has read of each row: the tokens, and what it holds of them. One
    row stands for all where `tokens` has a single entry that all rows share."""

    tokens: list[list[int]]
    held: Prompts


@dataclass(frozen=True)
class Case:
    """Answers to review: conversations, answers, and (`turn` layout) what was read of them: the
    prompt and the answer up to its last token, which is left to the request that follows; and
    what a tool found in each, which goes before every request about it."""

    messages: list[list[Message]]
    answers: list[Answer]
    read: Shown | None = None
    findings: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Reader:
    """A frozen model that reads in batches of fixed shapes. Several hosts call it with as many
    rows each; where their rows differ, all do what one of them needs.

    batch_size  rows a forward pass, at most; shorter lists are padded to a power of two, and
                to what the devices divide
    max_prompt  prompts keep their last `max_prompt` tokens
    max_tokens  quoted reviews are at most this long; the beginning of the quotation is left out
    evidence    what a tool finds in answers, to be shown beside them
    width_step  rows are padded to multiples of so many tokens: fewer programs, or less padding
    """

    model: Model
    chat: Chat
    layout: Layout = "quote"
    batch_size: int = 16
    max_prompt: int = 1024
    max_tokens: int = 1024
    evidence: Evidence | None = None
    width_step: int = WIDTH_STEP
    nothing: Shown = field(init=False, repr=False)
    beginning: Shown = field(init=False, repr=False)

    def __post_init__(self):
        width = self.model.config.hidden_size
        nothing = Prompts((), np.zeros(1, np.int32), np.zeros((1, width), self.model.dtype))
        beginning = Shown([[]], nothing)
        object.__setattr__(self, "nothing", beginning)
        if self.layout == "quote":
            # What all quoted reviews begin with is read once, here.
            tokens = quote_beginning(self.chat)
            read = prefill(
                self.model.config,
                self.model.params,
                *padded([tokens], 1, self.width_step),
                nothing,
                dtype=self.model.dtype,
            )
            beginning = Shown([tokens], read)
        object.__setattr__(self, "beginning", beginning)

    def read_prompts(self, messages: list[list[Message]]) -> Shown:
        """Read the prompts as training has them: too long, they keep their end."""
        rows = self.prompt_rows(messages, [True] * len(messages))
        return self._read(rows, rows, self.nothing.held, self._size(rows))

    def prompt_rows(self, messages: list[list[Message]], live: list[bool]) -> list[list[int]]:
        """The prompts' tokens, of rows that are not `live` none."""
        return [
            self.chat.prompt_tokens(prompt)[-self.max_prompt :] if alive else []
            for prompt, alive in zip(messages, live)
        ]

    def case(
        self, prompts: Shown | None, messages: list[list[Message]], answers: list[Answer]
    ) -> tuple[Case, np.ndarray | None]:
        """The answers, ready to be reviewed; and log P(answer | prompt) where reading them
        gave it (`turn` layout, which needs what was read of the prompts)."""
        if self.layout == "quote":
            return self._case(messages, answers), None
        assert prompts is not None
        log_probs, block = self._log_probs(prompts, answers)
        return self._case(messages, answers, self._answered(prompts, answers, block)), log_probs

    def log_probs(self, prompts: Shown, answers: list[Answer]) -> np.ndarray:
        """float32[rows]: log P(answer | prompt), summed over the answer's tokens."""
        return self._log_probs(prompts, answers)[0]

    def write(
        self, shown: Shown, live: list[bool], sampler: Sampler
    ) -> tuple[list[Answer], Block | None]:
        """Sample one answer a row after what is shown, each from its own of the sampler's keys
        [rows]; rows that are not `live` stay empty. Also the block of the answers, where the layout
        reads on behind them."""
        places = self._places(live)
        samples, block = self._decode(shown, self._runs(live), sampler.keys[places], sampler)
        return answers_of(samples, self.chat)[: len(live)], block

    def write_apart(
        self, parts: list[list[list[int]]], live: list[bool], samplers: list[Sampler]
    ) -> list[list[Answer]]:
        """`write` after whole rows, several lists of them in one batch, each drawn by a sampler of
        its own, all of the same settings."""
        size, places = self._size(live), self._places(live)
        rows = [row for part in parts for row in part + [[]] * (size - len(part))]
        shown = self._read(rows, rows, self.nothing.held, len(rows))
        keys = jnp.concatenate([sampler.keys[places] for sampler in samplers])
        runs = np.tile(self._runs(live), len(parts))
        answers = answers_of(self._decode(shown, runs, keys, samplers[0])[0], self.chat)
        return [answers[i * size :][: len(live)] for i in range(len(parts))]

    def _places(self, live: list[bool]) -> Int[np.ndarray, "size"]:
        """Which row each row of the batch draws as; those beyond the last draw for nobody."""
        return np.minimum(np.arange(self._size(live)), len(live) - 1)

    def _runs(self, live: list[bool]) -> Bool[np.ndarray, "size"]:
        return np.array(live)[self._places(live)] & (np.arange(self._size(live)) < len(live))

    def _decode(
        self, shown: Shown, runs: np.ndarray, keys, sampler: Sampler
    ) -> tuple[Samples, Block | None]:
        longest = max(map(len, shown.tokens), default=0)
        self._check(longest + int(sampler.settings.max_new_tokens), "a correction after its review")
        keys, runs = to_devices((keys[:, None], runs))
        return decode(
            self.model.config,
            self.model.params,
            shown.held,
            replace(sampler, keys=keys),
            runs,
            width=bucket(int(sampler.settings.max_new_tokens), self.width_step, 1 << 30),
            keep_block=self.layout == "turn",
            dtype=self.model.dtype,
        )

    def written(self, prompts: Shown, messages, answers: list[Answer], block: Block | None) -> Case:
        """The case of answers that were just written after their prompts: nothing is read."""
        if self.layout == "quote":
            return self._case(messages, answers)
        assert block is not None
        return self._case(messages, answers, self._answered(prompts, answers, block))

    def _case(self, messages, answers: list[Answer], read: Shown | None = None) -> Case:
        if self.evidence is None:
            return Case(messages, answers, read)
        evidence = self.evidence([answer.text for answer in answers])
        safe = [defused(findings, self.chat.without_control) for findings in evidence]
        return Case(messages, answers, read, safe)

    def beginnings(self, case: Case, picks: list[tuple[int, int]]) -> Case:
        """Beginnings of a case's answers, (row, tokens kept) each, as a case of their own. Of what
        was read (`turn` layout) nothing is read again."""
        messages = [case.messages[row] for row, _ in picks]
        answers = [beginning_of(case.answers[row], kept, self.chat) for row, kept in picks]
        if case.read is None:
            return self._case(messages, answers)
        rows, dropped = np.zeros((2, self._size(picks)), np.int32)
        rows[: len(picks)] = [row for row, _ in picks]
        dropped[: len(picks)] = [len(case.answers[row].tokens) - kept for row, kept in picks]
        read = [case.read.tokens[row] for row, _ in picks]
        tokens = [all_read[: len(all_read) - less] for all_read, less in zip(read, dropped)]
        held = _beginnings(case.read.held, *to_devices((rows, dropped)))
        return self._case(messages, answers, Shown(tokens, held))

    def rows(
        self, case: Case, requests: list[str], needed: list[bool] | None = None
    ) -> list[list[int]]:
        """Every row's tokens with its request about the answer, up to where the reply starts;
        nothing for rows that are not `needed`."""
        needed = needed or [True] * len(requests)
        rows = [
            self._row(case, i, request) if needed[i] else [] for i, request in enumerate(requests)
        ]
        self._check(max(map(len, rows), default=0), "a review")
        return rows

    def _row(self, case: Case, i: int, request: str) -> list[int]:
        answer = case.answers[i]
        if case.findings:
            request = with_findings(request, case.findings[i])
        if self.layout == "turn":
            unread = [] if answer.ended else answer.tokens[-1:]
            return case.read.tokens[i] + unread + next_turn(self.chat, request)
        return self._cut(quote(self.chat, case.messages[i], answer.text, request))

    def before(self, case: Case, rows_by_request: list[list[list[int]]]) -> Shown:
        """What stands before any of the requests, read: the answer's block in the `turn`
        layout; the common beginning of a row's quotations where there are several."""
        if self.layout == "turn":
            return case.read
        if len(rows_by_request) == 1:
            return self.beginning
        common = [common_beginning(rows) for rows in zip(*rows_by_request)]
        return self.extend(self.beginning, common)

    def extend(self, shown: Shown, rows: list[list[int]]) -> Shown:
        """Read whole rows, of which `shown` is the beginning."""
        shown, tails = self.tails(shown, rows)
        return self._read(rows, tails, shown.held, self._size(rows))

    def tails(self, shown: Shown, rows: list[list[int]]) -> tuple[Shown, list[list[int]]]:
        """What each row has beyond `shown`. Where a row does not begin with what is shown (its
        text has another first token there), all rows are read from their start."""
        known = shown.tokens * len(rows) if len(shown.tokens) == 1 else shown.tokens
        if anywhere(any(row and row[: len(old)] != old for row, old in zip(rows, known))):
            return self.nothing, rows
        return shown, [row[len(old) :] for row, old in zip(rows, known)]

    def padded_forms(self, tails: list[list[list[int]]]) -> tuple[np.ndarray, np.ndarray]:
        """Tails by form and row as int32[rows, forms, width], and their lengths."""
        size = self._size(tails[0])
        rows = [row for tail in tails for row in tail + [[]] * (size - len(tail))]
        tokens, lengths = padded(rows, len(rows), self.width_step)
        shape = (len(tails), size)
        return tokens.reshape(*shape, -1).swapaxes(0, 1), lengths.reshape(shape).T

    def _size(self, rows: list) -> int:
        size = min(self.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
        return -(-size // row_multiple()) * row_multiple()

    def _read(self, rows, tails, before: Prompts, size: int) -> Shown:
        tokens, lengths = to_devices(padded(tails, size, self.width_step))
        model = self.model
        held = prefill(model.config, model.params, tokens, lengths, before, dtype=model.dtype)
        return Shown(rows, held)

    def _log_probs(
        self, prompts: Shown, answers: list[Answer]
    ) -> tuple[Float[np.ndarray, "rows"], Block]:
        rows = [answer.tokens for answer in answers]
        tokens, lengths = to_devices(padded(rows, self._size(answers), self.width_step))
        log_probs, block = answer_log_probs(
            self.model.config,
            self.model.params,
            prompts.held,
            tokens[:, None],
            lengths[:, None],
            dtype=self.model.dtype,
        )
        return rows_held(log_probs)[: len(answers), 0], block

    def _answered(self, prompts: Shown, answers: list[Answer], block: Block) -> Shown:
        """Prompt and answer but for its last token: the end token opens the next turn, and the
        last token of an answer that was cut has not been read."""
        rows = [before + answer.tokens[:-1] for before, answer in zip(prompts.tokens, answers)]
        lengths = np.zeros(self._size(answers), np.int32)
        lengths[: len(answers)] = [max(len(answer.tokens) - 1, 0) for answer in answers]
        ends = to_devices(to_host(prompts.held.ends) + lengths)
        context = (*prompts.held.context, cut_block(block, ends))
        return Shown(rows, Prompts(context, ends, prompts.held.last))

    def _check(self, tokens: int, what: str) -> None:
        remedy = "lower config.conscience.max_review_tokens, or have shorter prompts and answers"
        self.model.config.check_row(tokens, what, remedy)

    def _cut(self, row: list[int]) -> list[int]:
        if len(row) <= self.max_tokens:
            return row
        # Python shows a warning once for each text: not at every step of a run.
        warnings.warn(
            f"some reviews are longer than {self.max_tokens} tokens and keep their end; see "
            "config.conscience.max_review_tokens",
            stacklevel=2,
        )
        beginning = self.beginning.tokens[0]
        if len(beginning) >= self.max_tokens // 2:
            return row[-self.max_tokens :]
        return beginning + row[len(beginning) - self.max_tokens :]


@jax.jit
def _beginnings(held: Prompts, rows: Int[Array, "picks"], dropped: Int[Array, "picks"]) -> Prompts:
    """These rows of what was read, each without the last `dropped` tokens of its last block."""
    *context, last = (chosen_rows(block, rows) for block in held.context)
    ends = held.ends[rows] - dropped
    context = (*context, cut_block(last, ends))
    return placed_prompts(Prompts(context, ends, held.last[rows]))


def padded(rows: list[list[int]], size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as int32[size, width] and their lengths, the width one of few (few_widths)."""
    width = largest(few_widths(max(map(len, rows), default=1), step))
    return pad_rows(rows + [[]] * (size - len(rows)), width)
