"""What the terms of the hybrid loss read of raw text: next tokens of packed windows, and the pairs
of reviewed continuations."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emergent_alignment.applications.pretraining.windows import TextBatch, Windows
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import (
    sharded_token_kl,
    sharded_token_log_probs,
    watched_forward,
)
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.task_and_pairs import added_loads
from emergent_alignment.training.views import Counts, PromptView


def window_hidden(
    settings: StepSettings, params: dict, windows: Windows
) -> Float[Array, "windows tokens width"]:
    """The final hidden states, each of which predicts its token's next one; a document sees
    nothing but itself."""
    return window_hidden_and_loads(settings, params, windows)[0]


def window_hidden_and_loads(
    settings: StepSettings, params: dict, windows: Windows
) -> tuple[Float[Array, "windows tokens width"], Float[Array, "layers 2 experts"] | None]:
    """`window_hidden`, and the loads of the experts, where the model has any."""
    return watched_forward(
        settings.config,
        params,
        windows.tokens,
        windows.positions,
        causal_plan(windows.positions, windows.segments),
        windows.segments > 0,
        dtype=settings.dtype,
        remat=settings.remat,
    )


def window_log_probs(
    settings: StepSettings, params: dict, windows: Windows
) -> Float[Array, "windows tokens"]:
    """float32 log-probs of every token's next one."""
    return _log_probs_from(settings, params, window_hidden(settings, params, windows), windows)


def _log_probs_from(settings, params, hidden, windows) -> Float[Array, "windows tokens"]:
    return sharded_token_log_probs(
        params,
        hidden,
        windows.targets,
        chunk_size=settings.chunk_size,
        cap=settings.config.logits_cap,
        dtype=settings.dtype,
    )


@dataclass(frozen=True)
class WindowView:
    """Windows under the policy and under the frozen copy (a HybridView, see training/views.py).
    What is predicted is what the task learns, and where a KL penalty holds the policy."""

    settings: StepSettings
    trainable: Any
    frozen: dict
    batch: TextBatch

    @staticmethod
    def counts(batch: TextBatch) -> Counts:
        """Of a whole batch: next tokens, and what PromptView counts of reviewed continuations."""
        of_pairs = {} if batch.pairs is None else PromptView.counts(batch.pairs)
        predicted = jnp.maximum(batch.windows.predicts.sum().astype(jnp.float32), 1.0)
        return of_pairs | {"target_tokens": predicted, "held_tokens": predicted}

    @cached_property
    def params(self) -> dict:
        """The policy's."""
        return policy_params(self.trainable, self.frozen, self.settings.lora)

    @cached_property
    def hidden(self) -> Float[Array, "windows tokens width"]:
        """The policy's."""
        return self._of_policy[0]

    @property
    def loads(self) -> Float[Array, "layers 2 experts"] | None:
        """What the policy's routers were asked for, of the windows and of the reviewed
        continuations."""
        return added_loads(self._of_policy[1], None if self.pairs is None else self.pairs.loads)

    @cached_property
    def _of_policy(self):
        return window_hidden_and_loads(self.settings, self.params, self.batch.windows)

    @cached_property
    def target_log_probs(self) -> Float[Array, "windows tokens"]:
        """Of every token's next one."""
        return _log_probs_from(self.settings, self.params, self.hidden, self.batch.windows)

    @property
    def target_mask(self) -> Bool[Array, "windows tokens"]:
        """Where there is a next token."""
        return self.batch.windows.predicts

    @cached_property
    def pairs(self) -> PromptView | None:
        """The reviewed continuations, where this batch has any."""
        if self.batch.pairs is None:
            return None
        return PromptView(self.settings, self.trainable, self.frozen, self.batch.pairs)

    @property
    def held_mask(self) -> Bool[Array, "windows tokens"]:
        """As the targets'."""
        return self.target_mask

    @cached_property
    def held_kl(self) -> Float[Array, "windows tokens"]:
        """KL(π_θ ‖ π_θ₀) of what comes next, at every token, in nats; θ₀ is what training started
        from."""
        frozen = jax.lax.stop_gradient(self.frozen)
        return sharded_token_kl(
            self.params,
            self.hidden,
            frozen,
            window_hidden(self.settings, frozen, self.batch.windows),
            chunk_size=self.settings.chunk_size,
            cap=self.settings.config.logits_cap,
            dtype=self.settings.dtype,
        )
