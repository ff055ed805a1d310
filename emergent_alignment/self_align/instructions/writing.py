"""A round: what the model is asked, and the entries of the lists that it writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_shares
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.instructions.list_entries import Entry, read_list
from emergent_alignment.self_align.instructions.prompts import Begun
from emergent_alignment.self_align.settings import SelfAlignConfig


@dataclass(frozen=True)
class Writer:
    """The base model, and how it writes lists: so many tokens each, drawn from (seed, round,
    purpose) and the list's place in its round."""

    setup: Setup
    config: SelfAlignConfig

    def lists(
        self,
        asked: Sequence[Begun],
        round_number: int,
        purpose: Purpose,
        max_new_tokens: int,
        most: int,
        tell: Callable[[int, int], None],
    ) -> list[list[Entry]]:
        """What the model adds to each of the begun lists, in their order. No round has more lists
        than `most`: one with fewer is padded, so that nothing is compiled for it."""
        setup, settings = self.setup, self.config.self_align.instructions
        lists: list[list[Entry]] = [[] for _ in asked]
        sampled = sample_shares(
            setup.model,
            setup.model.policy,
            setup.chat,
            [begun.tokens(setup.chat) for begun in asked],
            key_for(self.config.seed, purpose, round_number),
            sampler_settings(
                setup.chat.end_tokens,
                max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
            ),
            Batching(
                min(self.config.conscience.batch_size, 1 << (most - 1).bit_length()),
                self.config.data.bucket_tokens,
            ),
        )
        for count, (place, answer) in enumerate(sampled, 1):
            lists[place] = read_list(asked[place].whole(answer.text), ended=answer.ended)
            tell(count, len(asked))
        return lists


def round_draws(seed: int, round_number: int, purpose: Purpose) -> np.random.Generator:
    """What decides a round's choices."""
    return np.random.default_rng([seed, round_number, purpose])
