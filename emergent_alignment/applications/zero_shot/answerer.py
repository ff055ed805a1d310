"""Zero-shot: the conscience answers with no weight changed. `respond`, `chat` and `serve` start
here: which model drafts, who reviews, how long a prompt may be."""

from dataclasses import dataclass, replace
from pathlib import Path

from jax.sharding import Mesh

from emergent_alignment.conscience.conscience import Conscience
from emergent_alignment.conscience.drafting import ModelDrafter
from emergent_alignment.conscience.endpoint_hearing import EndpointReviewer
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.endpoints import endpoint_of
from emergent_alignment.runs.from_config import check_gate, conscience_settings, load_model
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.settings import changed, check_settings

# What a review or a request to rewrite puts around prompt and answer: 93 to 127 tokens of
# SmolLM2's for the bundled questions; a critique comes on top.
FRAME_TOKENS = 256
UNCUT = 1 << 30
# Prompts come in all lengths, one by one: few programs matter more than little padding.
_WIDTH_STEP = 128


@dataclass(frozen=True)
class ZeroShot:
    """A conscience, the name of the model that drafts, the mesh it lies on, and how many tokens
    a prompt may have, so that prompt and answer are reviewed whole (None: an endpoint's limit is
    its own)."""

    conscience: Conscience
    name: str
    mesh: Mesh | None
    max_prompt_tokens: int | None

    @property
    def knows_tokens(self) -> bool:
        """Whether answers come with their tokens: a model of ours drafts."""
        return isinstance(self.conscience.drafter, ModelDrafter)

    def check_length(self, conversation: list[Message]) -> None:
        """Raise UserError for a prompt that is too long, or that the chat template refuses."""
        drafter = self.conscience.drafter
        if not isinstance(drafter, ModelDrafter):
            return
        length = len(drafter.chat.prompt_tokens(conversation))
        if length > self.max_prompt_tokens:
            raise UserError(
                f"the conversation has {length} tokens, and this model can review at most "
                f"{self.max_prompt_tokens} together with an answer; shorten it"
            )


def zero_shot(config: RunConfig, *, run: Path | None, max_new_tokens: int) -> ZeroShot:
    """The conscience over config.endpoint where it has a base_url, else over a run's trained
    model or the config's. Raises UserError before any work where the user's input is not right.
    """
    config = changed(config, {"sampling.max_new_tokens": max_new_tokens})
    check_settings(config)
    settings = conscience_settings(config)
    check_gate(config)
    if config.endpoint.base_url:
        if run is not None:
            raise UserError("--run and --endpoint: name one of them; they are two models")
        return _over_endpoint(config, settings)
    if run is None:
        base = trained = load_model(config)
    else:
        trained_run = read_run(run, type(config))
        base, trained = trained_run.base, trained_run.trained
    positions = base.model.config.longest_row
    longest = positions - 2 * max_new_tokens - FRAME_TOKENS
    if longest < 1:
        raise UserError(
            f"{base.model.source}: has {positions} positions, too few for an answer of "
            f"{max_new_tokens} tokens, its correction and the question; ask for shorter answers"
        )
    # Nothing of what is said may go unreviewed: no review is cut, however long evidence makes it.
    review = replace(settings.review, max_tokens=UNCUT, width_step=_WIDTH_STEP)
    settings = replace(settings, review=review, max_prompt=longest, max_response=max_new_tokens)
    conscience = Conscience(
        trained.model, settings=settings, frozen=base.model, fail=config.conscience.fail
    )
    return ZeroShot(conscience, _name(run, base.model.source), base.mesh, longest)


def _name(run: Path | None, source: str) -> str:
    """What the model is called: the last part of a path, or a hub id."""
    if run is not None:
        return run.resolve().name
    return Path(source).name.removesuffix(".gguf") if Path(source).exists() else source


def _over_endpoint(config: RunConfig, settings: ConscienceSettings) -> ZeroShot:
    endpoint = endpoint_of(config.endpoint)
    reviewer = EndpointReviewer(
        endpoint,
        config.conscience.batch_size,
        config.endpoint.top_logprobs,
        config.endpoint.verdict_tokens,
    )
    conscience = Conscience(
        endpoint, settings=settings, frozen=reviewer, fail=config.conscience.fail
    )
    return ZeroShot(conscience, endpoint.model, None, None)
