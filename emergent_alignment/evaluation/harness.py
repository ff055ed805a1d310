"""Our model as a model class of lm-evaluation-harness; importing this needs that package.

Rows are sorted by length and padded to widths that double, so that few programs are compiled
whatever the tasks hold. How a request becomes tokens is the harness's own way: its class for
Hugging Face models gives the same scores (tests/parity).
"""

import functools
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.rendering import render
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.model import Model
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Purpose, key_for

SMALLEST_WIDTH = 32
SMALLEST_SCORED = 16
CHUNK_TOKENS = 16  # scored tokens of a row that meet the vocabulary at once
ROUND_TOKENS = 64  # new tokens between two looks for a stop text
DEFAULT_NEW_TOKENS = 256  # the harness's own, where a task names none
_AS_IT_IS = {"clean_up_tokenization_spaces": False}
_IGNORED = ("until", "do_sample", "max_gen_toks")
_DRAWN_BY = ("temperature", "top_p", "top_k")

Scored = tuple[str | tuple[str, str] | None, list[int], list[int]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """How a request's answer is drawn: at most `max_new_tokens`; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int


class HarnessModel(TemplateLM):
    """A `Model` that answers the harness's three kinds of request.

    tokenizer   a transformers tokenizer; the harness reads its chat template
    max_length  how many tokens the model reads at most
    label       what progress is shown of; "" shows none
    """

    def __init__(
        self,
        model: Model,
        chat: Chat,
        *,
        batch_size: int,
        seed: int = 0,
        label: str = "",
    ):
        super().__init__()
        self.model, self.chat, self.params = model, chat, model.policy
        self.tokenizer, self.max_length = model.tokenizer, model.config.longest_row
        self.batch_size, self.seed, self.label = batch_size, seed, label

    @property
    def eot_token_id(self) -> int:
        """The tokenizer's end token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """The harness's name of prompts that it keeps."""
        return self.model.source.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: object
    ) -> list[int]:
        """Token ids; the tokenizer's own begin token only where the text has none."""
        if add_special_tokens is None:
            prefix = self.tokenizer.decode(self.prefix_token_id, **_AS_IT_IS)
            add_special_tokens = not string.startswith(prefix)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[Message], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the model's own template writes it. As in the harness's own class,
        one that refuses system turns gets the conversation without them, which is logged."""
        write = functools.partial(
            render,
            self.tokenizer,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        try:
            return write(chat_history)
        except UserError:
            if all(turn["role"] != "system" for turn in chat_history):
                raise
            _logger.warning("the chat template knows no system turn: left out")
            return write([turn for turn in chat_history if turn["role"] != "system"])

    def _loglikelihood_tokens(
        self, requests: list[Scored], **kwargs: object
    ) -> list[tuple[float, bool]]:
        """(log P(continuation | context) in nats, whether greedy decoding gives it), in order."""
        rows, starts = [], []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise UserError(
                    f"a continuation of {len(continuation)} tokens is longer than this model "
                    f"reads ({self.max_length}); leave that task out"
                )
            row = (context + continuation)[-(self.max_length + 1) :]
            rows.append(row)
            starts.append(len(row) - len(continuation))
        scores: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        done = 0
        with self._progress("log-likelihoods") as meter:
            for chosen, width, num_scored in _batches(rows, starts, self.batch_size):
                filled = chosen + [chosen[-1]] * (self.batch_size - len(chosen))
                tokens, lengths = pad_rows([rows[i] for i in filled], width)
                scored = continuation_scores(
                    self.model.config,
                    self.params,
                    tokens,
                    lengths,
                    np.array([starts[i] for i in filled], np.int32),
                    num_scored=num_scored,
                    dtype=self.model.dtype,
                )
                log_probs, greedy = (np.asarray(part).tolist() for part in scored)
                for i, log_prob, likeliest in zip(chosen, log_probs, greedy):
                    scores[i] = log_prob, likeliest
                done += len(chosen)
                meter(done, len(rows))
        return scores

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log P(text) in nats, each text in windows of max_length that share one token."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                context, continuation = make_disjoint_window(window)
                windows.append((None, list(context), list(continuation)))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (log_prob, _) in zip(owners, self._loglikelihood_tokens(windows)):
            totals[owner] += log_prob
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers, each up to its first stop text. Requests that are drawn alike share
        batches."""
        alike: dict[Drawing, list[int]] = defaultdict(list)
        stops = []
        for i, request in enumerate(requests):
            settings = normalize_gen_kwargs(request.args[1], DEFAULT_NEW_TOKENS)
            alike[_drawing(settings, self.max_length)].append(i)
            end = self.tokenizer.decode([self.eot_token_id], **_AS_IT_IS)
            stops.append([*(settings.get("until") or []), end])
        texts, done = [""] * len(requests), 0
        with self._progress("answers") as meter:
            for drawing, chosen in alike.items():
                room = self.max_length - drawing.max_new_tokens
                contexts = [self.tok_encode(requests[i].args[0])[-room:] for i in chosen]
                wanted = [stops[i] for i in chosen]
                for place, text in self._answers(contexts, wanted, drawing, chosen):
                    texts[chosen[place]] = text
                    done += 1
                    meter(done, len(requests))
        return texts

    def _progress(self, what: str) -> AbstractContextManager:
        return progress(f"{self.label}: {what}", shown=bool(self.label))

    def _answers(
        self, contexts: list[list[int]], stops: list[list[str]], drawing: Drawing, ids: list[int]
    ) -> Iterator[tuple[int, str]]:
        """(place, text) as answers end. After each round, answers that hold a stop text end; the
        others are read again with what they have, and go on."""
        answers: list[list[int]] = [[] for _ in contexts]
        going, done = list(range(len(contexts))), 0
        while going:
            settings = sampler_settings(
                self.chat.end_tokens,
                min(ROUND_TOKENS, drawing.max_new_tokens - done),
                temperature=drawing.temperature,
                top_p=drawing.top_p,
                top_k=drawing.top_k,
            )
            done += int(settings.max_new_tokens)
            sampled = sample_answers(
                self.model,
                self.params,
                self.chat,
                [contexts[i] + answers[i] for i in going],
                key_for(self.seed, Purpose.HARNESS_ANSWERS, done),
                settings,
                Batching(
                    self.batch_size, SMALLEST_WIDTH, ids=np.array([ids[i] for i in going], np.int32)
                ),
            )
            unfinished = []
            for index, answer in sampled:
                i = going[index]
                answers[i] += answer.tokens
                said = [token for token in answers[i] if token not in self.chat.end_tokens]
                text = self.tokenizer.decode(said, skip_special_tokens=True, **_AS_IT_IS)
                stopped = any(stop and stop in text for stop in stops[i])
                if stopped or answer.ended or done >= drawing.max_new_tokens:
                    yield i, postprocess_generated_text(text, stops[i], None)
                else:
                    unfinished.append(i)
            going = sorted(unfinished)


@functools.partial(jax.jit, static_argnames=("config", "num_scored", "dtype"))
def continuation_scores(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, "batch"],
    starts: Int[Array, "batch"],
    *,
    num_scored: int,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch"], Bool[Array, "batch"]]:
    """float32 Σ log P(token | what stands before it) over the tokens from `starts` (1 or more)
    to `lengths` of right-padded rows, and whether each of them is the likeliest. At most
    `num_scored`, a multiple of CHUNK_TOKENS, are scored; no array is tokens × vocabulary."""
    batch, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width), tokens.shape)
    hidden, _ = forward(config, params, tokens, positions, causal_plan(positions), dtype=dtype)
    places = starts[:, None] + jnp.arange(num_scored)
    true = places < lengths[:, None]
    places = jnp.minimum(places, width - 1)
    predicting = jnp.take_along_axis(hidden, places[..., None] - 1, axis=1)
    targets = jnp.take_along_axis(tokens, places, axis=1)
    matrix = unembedding(params, dtype)

    def chunk(part):
        state, target = part
        logits = vocabulary_logits(state, matrix, config.logits_cap)
        picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
        return picked - jax.nn.logsumexp(logits, axis=-1), jnp.argmax(logits, axis=-1) == target

    def in_chunks(array):
        return jnp.moveaxis(array.reshape(batch, -1, CHUNK_TOKENS, *array.shape[2:]), 1, 0)

    scored = jax.lax.map(chunk, (in_chunks(predicting), in_chunks(targets)))
    log_probs, likeliest = (jnp.moveaxis(part, 0, 1).reshape(true.shape) for part in scored)
    return jnp.where(true, log_probs, 0.0).sum(-1), (likeliest | ~true).all(-1)


def _batches(
    rows: list[list[int]], starts: list[int], batch_size: int
) -> Iterator[tuple[list[int], int, int]]:
    """(indices of rows, width, number of scored tokens) of batches of one shape each, the widest
    first, so that memory that does not suffice shows at once."""
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (row, start) in enumerate(zip(rows, starts)):
        scored = len(row) - start
        shapes[_doubled(len(row), SMALLEST_WIDTH), _doubled(scored, SMALLEST_SCORED)].append(i)
    for (width, num_scored), members in sorted(shapes.items(), reverse=True):
        for first in range(0, len(members), batch_size):
            yield members[first : first + batch_size], width, num_scored


def _doubled(length: int, smallest: int) -> int:
    """The smallest of smallest, 2·smallest, 4·smallest, … that holds `length`."""
    return smallest << (-(-max(length, 1) // smallest) - 1).bit_length()


def _drawing(settings: dict, max_length: int) -> Drawing:
    """The harness's settings of a request as ours. Raises UserError for those that ask for
    another way to decode, and for more new tokens than the model reads."""
    for name, value in settings.items():
        if name not in _IGNORED + _DRAWN_BY:
            raise UserError(
                f"a task asks for generation with {name}={value!r}, which is not offered here; "
                f"known: {', '.join(_DRAWN_BY)}, max_gen_toks and until. Leave that task out"
            )
    most = settings["max_gen_toks"]
    if most >= max_length:
        raise UserError(
            f"a task asks for {most} new tokens, and this model reads {max_length} in all; "
            "leave that task out, or give its copy a smaller max_gen_toks"
        )
    return Drawing(
        most,
        settings.get("temperature") or 0.0,
        settings.get("top_p") or 1.0,
        settings.get("top_k") or 0,
    )
