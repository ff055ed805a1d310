"""Our model as a model provider of inspect_ai; importing this needs that package.

inspect_ai finds it by an entry point of setup.py: `--model emergent-alignment/PATH` is a base one,
with `-M run=runs/mine` the model that a run has trained.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from emergent_alignment.config import Config
from emergent_alignment.conscience.drafting import cut_at
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.reasoning import split_reasoning
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer, Batching, sample_answers
from emergent_alignment.models.model import load
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.workdir import read_run

PROVIDER = "emergent-alignment"
_NEW_TOKENS = 512
_ROLES = ("system", "user", "assistant")
# What a task may ask for that changes nothing here, or that inspect_ai itself sees to.
_HONOURED = {
    *("max_tokens", "temperature", "top_p", "top_k", "seed", "num_choices", "stop_seqs"),
    *("logprobs", "max_retries", "timeout", "attempt_timeout", "max_connections", "cache"),
    *("system_message", "adaptive_connections", "batch", "cache_prompt", "max_tool_output"),
}


@dataclass(frozen=True)
class _Drawing:
    """How an answer is drawn; requests that are drawn alike share batches."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int


@dataclass(eq=False)
class _Request:
    """One answer that is asked for: its prompt, the number that its randomness is drawn by, and
    what came of it."""

    prompt: list[int]
    drawing: _Drawing
    number: int
    came: Answer | Exception | None = None


class InspectModel(ModelAPI):
    """A model of ours that answers inspect_ai's chats.

    model_name  what stands behind `emergent-alignment/`: a directory, hub id, .gguf file or
                `default`; the name alone where `run` says which
    run         the work directory of a run, whose model is taken (`-M run=runs/mine`)
    batch_size  answers that are sampled together, and connections that inspect_ai opens
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        run: str = "",
        batch_size: int = 16,
    ):
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        own = read_run(Path(run), Config).trained.model if run else load(model_name)
        self.model, self.batch_size = own, batch_size
        self.chat, self._policy = read_chat(own.tokenizer, own.source), own.policy
        self._waiting: list[_Request] = []
        self._asked: Counter[tuple[int, ...]] = Counter()
        self._lock = anyio.Lock()

    def max_tokens(self) -> int:
        """Tokens of an answer where a task names none."""
        return _NEW_TOKENS

    def max_connections(self) -> int:
        """Requests at once: as many as a batch holds."""
        return self.batch_size

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """The answers to a chat. Raises UserError for what is not offered: tools, contents that
        are no text, and ways to decode that are not ours."""
        if tools:
            raise UserError("this model calls no tools; leave the task's tools out")
        _check_config(config)
        prompt = self.chat.prompt_tokens([_message(message) for message in input])
        drawing = _Drawing(
            min(config.max_tokens or _NEW_TOKENS, self._room(prompt)),
            1.0 if config.temperature is None else config.temperature,
            1.0 if config.top_p is None else config.top_p,
            config.top_k or 0,
            config.seed or 0,
        )
        asked = [self._request(prompt, drawing) for _ in range(config.num_choices or 1)]
        self._waiting += asked
        while any(request.came is None for request in asked):
            async with self._lock:  # who waits for it meanwhile is in the next batch
                if any(request.came is None for request in asked):
                    await anyio.to_thread.run_sync(self._answer, self._next_batch())
        answers = []
        for request in asked:
            if isinstance(request.came, Exception):
                raise request.came
            answers.append(request.came)
        return self._output(prompt, answers, config)

    def _room(self, prompt: list[int]) -> int:
        room = self.model.config.longest_row - len(prompt)
        if room < 1:
            raise UserError(f"a prompt of {len(prompt)} tokens is longer than this model reads")
        return room

    def _request(self, prompt: list[int], drawing: _Drawing) -> _Request:
        """The n-th time that a prompt is asked draws from its tokens and n, in whatever order
        requests come."""
        key = tuple(prompt)
        number = zlib.crc32(np.array([self._asked[key], *prompt], np.int64).tobytes()) >> 1
        self._asked[key] += 1
        return _Request(prompt, drawing, number)

    def _next_batch(self) -> list[_Request]:
        first = self._waiting[0].drawing
        batch = [one for one in self._waiting if one.drawing == first][: self.batch_size]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        """Fill in what came of each, a failure as well: its own task is told."""
        try:
            for place, answer in self._sampled(batch, batch[0].drawing):
                batch[place].came = answer
        except Exception as error:  # whatever it is, the task that asked is told
            for request in batch:
                request.came = request.came or error

    def _sampled(self, batch: list[_Request], drawing: _Drawing) -> Iterator[tuple[int, Answer]]:
        settings = sampler_settings(
            self.chat.end_tokens,
            drawing.max_new_tokens,
            temperature=drawing.temperature,
            top_p=drawing.top_p,
            top_k=drawing.top_k,
        )
        prompts = [request.prompt for request in batch]
        batching = Batching(
            self.batch_size, ids=np.array([request.number for request in batch], np.int32)
        )
        key = key_for(drawing.seed, Purpose.GENERATED)
        yield from sample_answers(
            self.model, self._policy, self.chat, prompts, key, settings, batching
        )

    def _output(self, prompt: list[int], answers: list[Answer], config: GenerateConfig):
        stops = tuple(config.stop_seqs or ())
        written = sum(len(answer.tokens) for answer in answers)
        return ModelOutput(
            model=self.model_name,
            choices=[self._choice(answer, stops, bool(config.logprobs)) for answer in answers],
            usage=ModelUsage(
                input_tokens=len(prompt),
                output_tokens=written,
                total_tokens=len(prompt) + written,
            ),
        )

    def _choice(self, answer: Answer, stops: tuple[str, ...], wanted: bool) -> ChatCompletionChoice:
        cut = cut_at(answer, stops, self.chat)
        reasoning, said = split_reasoning(cut.text)
        content: str | list[Content] = said
        if reasoning:
            content = [ContentReasoning(reasoning=reasoning), ContentText(text=said)]
        return ChatCompletionChoice(
            message=ChatMessageAssistant(content=content, source="generate"),
            stop_reason="stop" if cut.ended else "max_tokens",
            logprobs=self._log_probs(answer) if wanted else None,
        )

    def _log_probs(self, answer: Answer) -> Logprobs:
        """Of every token that was sampled, also behind a stop text: the raw model's, in nats."""
        pairs = zip(answer.tokens, np.asarray(answer.log_probs).tolist())
        return Logprobs(
            content=[
                Logprob(token=self.model.tokenizer.decode([token]), logprob=log_prob)
                for token, log_prob in pairs
            ]
        )


@modelapi(name=PROVIDER)
def emergent_alignment() -> type[ModelAPI]:
    """What inspect_ai asks the entry point for."""
    return InspectModel


def _check_config(config: GenerateConfig) -> None:
    asked = {name for name, value in config.model_dump(exclude_none=True).items() if value}
    if config.top_logprobs:
        raise UserError("top_logprobs is not offered here: logprobs are of sampled tokens alone")
    if unknown := sorted(asked - _HONOURED):
        raise UserError(f"{', '.join(unknown)}: not offered here, and not ignored; leave it out")


def _message(message: ChatMessage) -> Message:
    others: Any = getattr(message, "tool_calls", None)
    if message.role not in _ROLES or others:
        raise UserError(f"a message of the role {message.role}, or one that calls tools")
    if isinstance(message.content, list) and any(
        part.type not in ("text", "reasoning") for part in message.content
    ):
        raise UserError("only messages of text are read here")
    return {"role": message.role, "content": message.text}
