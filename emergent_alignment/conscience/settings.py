"""How the conscience decides and corrects, whoever reviews."""

from dataclasses import dataclass
from typing import Literal

from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.revise import Link

Gate = Literal["score", "relative"]


@dataclass(frozen=True)
class Chance:
    """How often a drawn verdict flags a candidate, and lets a correction pass."""

    flag_rate: float
    pass_rate: float


@dataclass(frozen=True)
class ConscienceSettings:
    """How the conscience decides and corrects.

    review          question, layout, polarity
    gate            `score` corrects what is flagged; `relative` corrects every candidate and
                    keeps the pair where the correction scores higher
    threshold       scores at or above it are approved (nats)
    margin          how far above the threshold (score) or the candidate (relative) a
                    correction must score, in nats
    chain           the links of correction, tried in order
    critique        whether the frozen copy first writes what is wrong (read by `rewrite`)
    max_new_tokens, temperature, top_p   how corrections are sampled
    stop            texts at which corrections end; not part of them
    keep_truncated  whether a correction that ran into the length limit may be chosen
    max_prompt      prompts keep their last `max_prompt` tokens
    max_response    corrections longer than this many tokens are dropped as too long
    similarity      texts at least this alike (0 to 1, difflib's ratio over words) count as
                    identical
    chance          where given, verdicts are drawn by it instead (chance.py)
    """

    review: ReviewSettings
    gate: Gate = "score"
    threshold: float = 0.0
    margin: float = 0.0
    chain: tuple[Link, ...] = ("rewrite", "fresh")
    critique: bool = False
    max_new_tokens: int = 64
    temperature: float = 0.7
    top_p: float = 0.95
    stop: tuple[str, ...] = ()
    keep_truncated: bool = False
    max_prompt: int = 1024
    max_response: int = 1024
    similarity: float = 0.95
    chance: Chance | None = None
