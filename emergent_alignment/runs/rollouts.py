"""Answers of a run's policy that a server of the user's samples (sampling.engine = endpoint).

The first host writes the policy's weights where the server reads them, every so many steps; each
host asks for its own rows. The log-probs that count are ours: the policy of this very step reads
every answer once, and how far the server's own are from that is logged.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from emergent_alignment.errors import Unreachable, UserError
from emergent_alignment.generation.completion import Continuation
from emergent_alignment.generation.endpoint import Endpoint, EndpointError
from emergent_alignment.generation.reading import log_probs_as_read
from emergent_alignment.generation.rollout_server import RolloutServer, is_down
from emergent_alignment.generation.sampler import SamplerSettings
from emergent_alignment.generation.text import Answer, Batching
from emergent_alignment.generation.wanted import at_once
from emergent_alignment.models.model import export
from emergent_alignment.parallel.hosts import anywhere, gather, is_first, together
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.endpoints import endpoint_of
from emergent_alignment.runs.from_config import Setup, lora_config, with_adapters
from emergent_alignment.storage.files import is_whole_folder
from emergent_alignment.storage.json_values import digest
from emergent_alignment.training.state import fingerprint, policy_params

_SECTION = "config.sampling.endpoint"
LARGE_GAP = 0.1  # nats a token; bfloat16 on both sides makes a tenth of it


def uses_server(config: RunConfig) -> bool:
    """Whether a server of the user's samples for the policy."""
    return config.conscience.enabled and config.sampling.engine == "endpoint"


def check_server(config: RunConfig) -> None:
    """Raise UserError where the server of a config, or the folder of its weights, is not there."""
    if not uses_server(config):
        return
    folder = config.sampling.endpoint.weights
    if is_first() and not Path(folder).is_dir():
        raise UserError(
            f"{_SECTION}.weights: {folder!r} is no folder; make one that the server can read, too"
        )
    with _told():
        _server_of(config).check()


@dataclass(frozen=True)
class Version:
    """Weights that the server samples by: of the policy after so many steps, their folder, and the
    endpoint that asks for them."""

    step: int
    folder: Path
    endpoint: Endpoint


@dataclass(frozen=True)
class _Written:
    """An answer's tokens, whether it ended by itself, and the server's log-probs of it."""

    tokens: list[int]
    ended: bool
    log_probs: tuple[float, ...]


class Rollouts:
    """The policy of a run as its server samples it."""

    def __init__(self, config: RunConfig, setup: Setup):
        self._config, self._setup, self._lora = config, setup, lora_config(config)
        with together(), _told():
            self._server = _server_of(config)
        self._version: Version | None = None
        self._gaps: list[tuple[float, int]] = []
        self._has_warned = False

    def answers(
        self,
        step: int,
        trainable: Any,
        prompts: list[list[int]],
        seeds: list[int],
        sampler: SamplerSettings,
    ) -> list[Answer]:
        """The server's answer to each of this host's prompts, with the log-probs of this step's
        policy; to no prompt an empty one. Raises UserError where the server fails, on every host.
        """
        endpoint = self._current(step, trainable).endpoint
        written = self._written(endpoint, prompts, seeds, sampler)
        rows = [one.tokens for one in written]
        policy = policy_params(trainable, self._setup.model.params, self._lora)
        batching = Batching(self._config.conscience.batch_size, self._config.data.bucket_tokens)
        ours = log_probs_as_read(self._setup.model, policy, prompts, rows, batching)
        self._gaps += [
            (log_prob_gap(one.log_probs, log_probs), len(one.tokens))
            for one, log_probs in zip(written, ours)
        ]
        decode = self._setup.chat.decode
        return [
            Answer(one.tokens, log_probs, decode(one.tokens), one.ended)
            for one, log_probs in zip(written, ours)
        ]

    @property
    def has_base(self) -> bool:
        """Whether the server keeps the frozen copy, whatever versions it is given."""
        return self._server.adapters

    def base_answers(
        self, prompts: list[list[int]], seeds: list[int], sampler: SamplerSettings
    ) -> list[Answer]:
        """The frozen copy's answers, as `answers`, but for log-probs: they come with none."""
        nothing, decode = np.zeros(0, np.float32), self._setup.chat.decode
        written = self._written(self._server.endpoint, prompts, seeds, sampler)
        return [Answer(one.tokens, nothing, decode(one.tokens), one.ended) for one in written]

    def scalars(self, step: int) -> dict[str, float]:
        """How far the server's log-probs were from ours since the last call, a token, and how many
        steps its weights are behind; over all hosts. Says so where it is far."""
        rows = np.array([[gap * length, length] for gap, length in self._gaps], np.float32)
        self._gaps = []
        total, tokens = gather(rows.reshape(-1, 2).sum(0)).sum(0)
        gap = float(total / max(tokens, 1))
        behind = step - self._version.step if self._version else 0
        if gap > LARGE_GAP and not self._has_warned and is_first():
            self._has_warned = True
            print(_far_off(step, gap, behind), file=sys.stderr, flush=True)
        return {"engine/log_prob_gap": gap, "engine/steps_behind": float(behind)}

    def _written(
        self,
        endpoint: Endpoint,
        prompts: list[list[int]],
        seeds: list[int],
        sampler: SamplerSettings,
    ) -> list[_Written]:
        def ask(place: int) -> _Written:
            told = endpoint.continuation(
                prompts[place],
                max_tokens=int(sampler.max_new_tokens),
                temperature=float(sampler.temperature),
                **_options(sampler, seeds[place]),
            )
            return _Written(*self._tokens(told, sampler), told.log_probs)

        asked = [place for place, prompt in enumerate(prompts) if prompt]
        with together(), _told():
            told = at_once(ask, asked, self._config.sampling.endpoint.concurrency)
            by_place = dict(zip(asked, told))
        return [by_place.get(place, _Written([], True, ())) for place in range(len(prompts))]

    def _current(self, step: int, trainable: Any) -> Version:
        """The version that is asked at this step: a new one where it is due, or where this process
        has told the server of none yet."""
        former = self._version
        if former is None or step >= former.step + self._config.sampling.endpoint.every:
            self._version = self._published(step, trainable)
            with together(), _told():
                if is_first():
                    self._server.load(self._version.folder.name, self._version.folder)
                    self._forget(former)
        return self._version

    def _published(self, step: int, trainable: Any) -> Version:
        """The policy's weights in a folder that is named by what is in it: one that is there holds
        the same."""
        model = with_adapters(self._setup.model, self._lora, trainable)
        digits = digest([fingerprint(trainable), self._setup.model.source, repr(self._lora)])
        parent = Path(self._config.sampling.endpoint.weights).resolve()
        folder = parent / f"step-{step}-{digits[:8]}"
        if not anywhere(is_first() and is_whole_folder(folder)):
            export(model, folder, format="peft" if self._lora else "safetensors")
        return Version(step, folder, self._server.asked_for(folder.name))

    def _forget(self, former: Version | None) -> None:
        if former is not None and former.folder != self._version.folder:
            self._server.unload(former.folder.name)
            shutil.rmtree(former.folder, ignore_errors=True)

    def _tokens(self, written: Continuation, sampler: SamplerSettings) -> tuple[list[int], bool]:
        """An answer's tokens, the server's where it tells them, and whether it ended by itself."""
        chat, ended = self._setup.chat, written.finish_reason == "stop"
        tokens = list(written.tokens)
        if max(tokens, default=0) >= self._setup.model.config.vocab_size:
            raise UserError(
                f"{_SECTION}: token {max(tokens)} is none of {self._setup.model.source}'s; does "
                "the server have the same model?"
            )
        if not tokens:
            tokens = chat.written_tokens(written.text, ended=ended)
        elif ended and tokens[-1] not in chat.end_tokens:
            tokens.append(chat.end_token)
        most = int(sampler.max_new_tokens)
        return tokens[:most], ended and len(tokens) <= most


def log_prob_gap(theirs: tuple[float, ...], ours: Float[np.ndarray, "tokens"]) -> float:
    """How far two readings of one answer are apart, in nats a token: the mean difference where they
    are of as many tokens (some servers leave the end token out), else that of the whole answer."""
    if len(theirs) == len(ours) - 1:
        ours = ours[: len(theirs)]
    if len(theirs) == len(ours):
        return float(np.abs(np.array(theirs) - ours).mean()) if len(ours) else 0.0
    return float(abs(sum(theirs) - ours.sum(dtype=np.float64)) / max(len(ours), 1))


def _far_off(step: int, gap: float, behind: int) -> str:
    return (
        f"step {step}: the log-probs of {_SECTION} are {gap:.2f} nats a token from ours, by "
        f"weights {behind} steps old: does it read these weights, have the same base model and "
        "tokenizer, and give raw log-probs? If they are only old, lower its `every`"
    )


def _options(sampler: SamplerSettings, seed: int) -> dict[str, Any]:
    """All that shapes the draw, said outright: servers take what is left out from the model's own
    generation_config.json."""
    return {
        "seed": seed,
        "top_p": float(sampler.top_p),
        "top_k": int(sampler.top_k) or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": [int(token) for token in sampler.end_tokens if token >= 0],
    }


def _server_of(config: RunConfig) -> RolloutServer:
    section = config.sampling.endpoint
    return RolloutServer(endpoint_of(section, _SECTION), section.load, bool(config.lora.rank))


@contextmanager
def _told() -> Iterator[None]:
    """An endpoint's failure as one of this section: Unreachable where it may pass."""
    try:
        yield
    except EndpointError as error:
        kind = Unreachable if is_down(error) else UserError
        raise kind(f"{_SECTION}: {error}") from None
