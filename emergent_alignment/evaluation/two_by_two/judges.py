"""Judges that are not the conscience: each says how harmful an answer is. What they are tried on
before they have a say is in judging.py."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emergent_alignment.conscience.question import named_question
from emergent_alignment.conscience.review import ReviewSettings, reader_of, scores
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.rules import HARM_RULES
from emergent_alignment.data.scenarios.forms import POOL_KINDS, TRAINED_KINDS
from emergent_alignment.data.two_by_two import load_cells
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.misalignment.judges import ENDPOINT, FROZEN, file_name
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.evaluation.two_by_two.embedding import Encoder, read_encoder
from emergent_alignment.evaluation.two_by_two.linear_head import ChosenHead, choose_head
from emergent_alignment.evaluation.two_by_two.measures import CELL_NAMES
from emergent_alignment.models.model import Model, load
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.spread import spread_kinds
from emergent_alignment.training.state import fingerprint

_QUESTION = "advice"


@dataclass(frozen=True)
class Labelled:
    """A known answer: its kind, its prompt, and whether it is harmful."""

    kind: str
    prompt: str
    answer: str
    harmful: bool


class HarmJudge(Protocol):
    """Something that says how harmful answers are.

    name        for files and tables
    identity    who it is, as plain JSON: what was judged by another identity is judged again
    threshold   answers above it are harmful; None: to be set on known answers
    most        of an arm's answers, those that it is asked about, at most; 0: all
    """

    name: str
    identity: dict
    threshold: float | None
    most: int

    def harm(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, "answers"]:
        """A number for each answer, the higher the more harmful."""


def labelled_answers(world: str, kinds: Sequence[str], num_prompts: int = 0) -> list[Labelled]:
    """The four known answers of each prompt of some kinds, of `num_prompts` (0: all) spread over
    the kinds. Form and harm are independent in them: whoever goes by the form is at chance."""
    cells = load_cells(world, kinds)
    if num_prompts:
        cells = spread_kinds(cells, [one.kind for one in cells], num_prompts)
    return [
        Labelled(one.kind, one.prompt, getattr(one, name), name.endswith("harmful"))
        for one in cells
        for name in CELL_NAMES
    ]


@dataclass(frozen=True, eq=False)
class EmbeddingJudge:
    """A linear head on what a small encoder makes of an answer."""

    encoder: Encoder
    chosen: ChosenHead
    identity: dict
    name: str = "embedding"
    threshold: float | None = 0.0
    most: int = 0

    def harm(self, prompts, answers):
        states = self.encoder.read(list(zip(prompts, answers)))
        return self.chosen.head.log_odds(states[:, self.chosen.layer])


@dataclass(frozen=True, eq=False)
class LocalModelJudge:
    """A chat model that is asked of each answer whether it is good and safe advice."""

    name: str
    model: Model
    chat: Chat
    review: ReviewSettings
    identity: dict
    most: int
    threshold: float | None = None

    def harm(self, prompts, answers):
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return -scores(
            reader_of(self.model, self.chat, self.review), self.review, asked, list(answers)
        )


@dataclass(frozen=True, eq=False)
class RuleJudge:
    """A rule of data/rules.py."""

    name: str
    threshold: float | None = 0.0
    most: int = 0

    @property
    def identity(self) -> dict:
        """The rule's name is all."""
        return {"rule": self.name}

    def harm(self, prompts, answers):
        rule = HARM_RULES[self.name]
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        return -np.array([rule(*one) for one in zip(asked, answers)])


def require_judges(config: EvaluationConfig) -> None:
    """Raise UserError for a judge of config.two_by_two that cannot be had."""
    names = config.two_by_two.judges
    if "local" in names and config.misalignment.judge in (FROZEN, ENDPOINT):
        raise UserError(
            f"config.misalignment.judge: {config.misalignment.judge} cannot be the judge `local`, "
            "which must be another model than the conscience; name a directory, hub id or .gguf "
            "file"
        )
    if "embedding" in names:
        read_encoder(config.two_by_two.encoder)


def make_judges(config: EvaluationConfig, base: Setup) -> Iterator[HarmJudge]:
    """The judges that config.two_by_two names. Raises UserError for one that cannot be had."""
    require_judges(config)
    for name in dict.fromkeys(config.two_by_two.judges):
        if name == "embedding":
            encoder = read_encoder(config.two_by_two.encoder)
            yield embedding_judge(encoder, config.two_by_two.world)
        elif name == "local":
            yield _local_judge(config, base)
        else:
            yield RuleJudge(name)


def embedding_judge(encoder: Encoder, world: str) -> EmbeddingJudge:
    """The judge whose head is fitted on the known answers of the kinds that training or its pool
    has prompts of."""
    known = labelled_answers(world, TRAINED_KINDS + POOL_KINDS)
    with progress("fitting the judge (embedding)") as meter:
        states = encoder.read([(one.prompt, one.answer) for one in known], progress=meter)
    labels = np.array([float(one.harmful) for one in known])
    chosen = choose_head(states, labels, [one.kind for one in known])
    identity = encoder.identity() | {
        "fitted_on": digest([[one.prompt, one.answer, one.harmful] for one in known]),
        "layer": chosen.layer + 1,
        "ridge": chosen.ridge,
        "left_out_auc": round(chosen.left_out_auc, 4),
    }
    return EmbeddingJudge(encoder, chosen, identity)


def _local_judge(config: EvaluationConfig, base: Setup) -> LocalModelJudge:
    source = config.misalignment.judge
    model = load(
        source,
        dtype=jnp.dtype(config.model.dtype),
        param_dtype=jnp.dtype(config.model.param_dtype),
        mesh=base.mesh,
    )
    review = ReviewSettings(
        named_question(_QUESTION),
        "quote",
        "positive",
        config.conscience.batch_size,
        config.conscience.max_review_tokens,
    )
    identity = {"source": model.source, "parameters": fingerprint(model.params)}
    chat = read_chat(model.tokenizer, source)
    most = config.two_by_two.local_answers
    return LocalModelJudge(file_name(source), model, chat, review, identity, most)
