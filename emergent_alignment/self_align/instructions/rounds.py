"""Rounds of instructions: self-instruct and questions about topics side by side, until there are
enough of both."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from emergent_alignment.randomness import Purpose
from emergent_alignment.self_align.instructions.prompts import (
    Begun,
    ask_questions,
    prompt_sentences,
    self_instruct,
)
from emergent_alignment.self_align.instructions.rules import Dropped, Pool, TextRules
from emergent_alignment.self_align.instructions.sources import HardKind, Seed
from emergent_alignment.self_align.instructions.writing import Writer, round_draws
from emergent_alignment.self_align.settings import SelfAlignConfig

SELF_INSTRUCT, RED_TEAM = "self_instruct", "red_team"
# Dropped texts of each rule that a round remembers, for the report.
_REMEMBERED = 2
# Instructions that a list is expected to bring: the last rounds ask for no more lists than needed.
_EXPECTED = 2


@dataclass(frozen=True)
class Instruction:
    """An instruction that the model wrote: by which generator, and of red-teaming of which kind
    and about which topic."""

    instruction: str
    kind: str
    topic: str
    source: str


@dataclass(frozen=True)
class InstructionRound:
    """What a round brought: the instructions kept, all `made` of each generator, drops by
    generator and rule, and some of the dropped ones."""

    made: dict[str, int]
    kept: list[Instruction]
    dropped: dict[str, dict[str, int]]
    shown: list[dict]


@dataclass(frozen=True)
class Started:
    """What all rounds start from: the settings, the seeds, the kinds and the topics of each."""

    config: SelfAlignConfig
    seeds: Sequence[Seed]
    kinds: Sequence[HardKind]
    topics: dict[str, list[str]]

    def quotas(self) -> dict[str, int]:
        """How many instructions are wanted of each kind, self-instruct counting as one. Those
        that cannot be split evenly go to the kinds that stand first."""
        settings = self.config.self_align.instructions
        of_topics = round(settings.wanted * settings.red_team_share)
        each, more = divmod(of_topics, len(self.kinds))
        quotas = {kind.name: each + (place < more) for place, kind in enumerate(self.kinds)}
        return quotas | {SELF_INSTRUCT: settings.wanted - of_topics}

    def pool(self, rounds: Sequence[InstructionRound]) -> Pool:
        """The pool as the rounds have left it."""
        settings = self.config.self_align.instructions
        rules = TextRules(settings.fewest_words, settings.most_words, settings.unservable)
        pool = Pool(rules, settings.similarity, self.quotas())
        for text in self.given() + prompt_sentences():
            pool.keep(text, None)
        for one_round in rounds:
            for row in one_round.kept:
                pool.keep(row.instruction, quota_of(row))
        return pool

    def given(self) -> list[str]:
        """What people wrote: seeds, and the kinds' examples."""
        return [seed.instruction for seed in self.seeds] + [kind.example for kind in self.kinds]


def quota_of(row: Instruction) -> str:
    """What the instruction counts for."""
    return SELF_INSTRUCT if row.source == SELF_INSTRUCT else row.kind


def missing(pool: Pool) -> dict[str, int]:
    """How many instructions each kind still lacks; kinds that lack none are left out."""
    left = {kind: quota - pool.of_kind[kind] for kind, quota in pool.quotas.items()}
    return {kind: number for kind, number in left.items() if number > 0}


def write_instructions(
    started: Started,
    writer: Writer,
    pool: Pool,
    rounds: Sequence[InstructionRound],
    tell: Callable[[int, int], None],
) -> InstructionRound:
    """The next round. What it keeps goes into the pool."""
    number, settings = len(rounds), started.config.self_align.instructions
    draws = round_draws(started.config.seed, number, Purpose.INSTRUCTIONS)
    written = [row for earlier in rounds for row in earlier.kept]
    own, of_topics = _numbers_of_lists(missing(pool), settings.prompts_per_round)
    texts = [row.instruction for row in written if row.source == SELF_INSTRUCT]
    planned = [_next_examples(started, texts, draws) for _ in range(own)]
    planned += _next_questions(started, written, missing(pool), of_topics, draws)
    asked = [begun for begun, _ in planned]
    most = settings.prompts_per_round
    lists = writer.lists(asked, number, Purpose.INSTRUCTIONS, settings.max_new_tokens, most, tell)
    candidates = [
        (Instruction(entry.text, *place), entry.finished)
        for (_, place), entries in zip(planned, lists)
        for entry in entries
    ]
    return _sorted_out(candidates, pool)


def _numbers_of_lists(lacking: dict[str, int], most: int) -> tuple[int, int]:
    """How many lists of self-instruct and of questions the round asks for: no more than the lack
    needs, and of `most` each gets its share, at least one where it lacks any."""
    needs = {kind: -(-number // _EXPECTED) for kind, number in lacking.items()}
    own = needs.pop(SELF_INSTRUCT, 0)
    of_topics = sum(needs.values())
    if own + of_topics <= most:
        return own, of_topics
    share = round(most * own / (own + of_topics))
    if own and of_topics and most > 1:
        share = min(max(share, 1), most - 1)
    return share, most - share


Planned = tuple[Begun, tuple[str, str, str]]


def _next_examples(started: Started, own: Sequence[str], draws: np.random.Generator) -> Planned:
    """Seeds, with some of the model's own instructions among them."""
    settings = started.config.self_align.instructions
    num_own = min(settings.own_examples, len(own))
    shown = _some(own, num_own, draws)
    seeds = [seed.instruction for seed in started.seeds]
    shown += _some(seeds, settings.examples - num_own, draws)
    return self_instruct(_some(shown, len(shown), draws)), ("", "", SELF_INSTRUCT)


def _next_questions(
    started: Started,
    written: Sequence[Instruction],
    lacking: dict[str, int],
    prompts: int,
    draws: np.random.Generator,
) -> list[Planned]:
    """Kinds that lack most first, and of each the topics with the fewest questions."""
    kinds = {kind.name: kind for kind in started.kinds}
    left = {kind: lacking[kind] for kind in kinds if kind in lacking}
    used = Counter((row.kind, row.topic) for row in written)
    planned = []
    for _ in range(prompts):
        name = max(left, key=lambda kind: (left[kind], draws.random()))
        topics = started.topics[name]
        topic = min(topics, key=lambda topic: (used[name, topic], draws.random()))
        left[name] -= _EXPECTED
        used[name, topic] += _EXPECTED
        planned.append((ask_questions(kinds[name], topic), (name, topic, RED_TEAM)))
    return planned


def _some(texts: Sequence[str], number: int, draws: np.random.Generator) -> list[str]:
    return [texts[place] for place in draws.choice(len(texts), number, replace=False)]


def _sorted_out(candidates: Sequence[tuple[Instruction, bool]], pool: Pool) -> InstructionRound:
    made: Counter[str] = Counter()
    dropped: dict[str, Counter[str]] = {}
    kept, shown = [], []
    for row, finished in candidates:
        made[row.source] += 1
        fault = pool.fault(row.instruction, quota_of(row)) if finished else Dropped("unfinished")
        if fault is None:
            pool.keep(row.instruction, quota_of(row))
            kept.append(row)
            continue
        faults = dropped.setdefault(row.source, Counter())
        faults[fault.rule] += 1
        if faults[fault.rule] <= _REMEMBERED:
            shown.append(asdict(row) | asdict(fault))
    return InstructionRound(dict(made), kept, {k: dict(v) for k, v in dropped.items()}, shown)
