"""Red-teaming's first half: from kinds of hard question to topics, as many for each kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emergent_alignment.randomness import Purpose
from emergent_alignment.self_align.instructions.list_entries import Entry
from emergent_alignment.self_align.instructions.prompts import ask_topics
from emergent_alignment.self_align.instructions.rules import topic_broken_by
from emergent_alignment.self_align.instructions.sources import HardKind
from emergent_alignment.self_align.instructions.writing import Writer, round_draws
from emergent_alignment.self_align.settings import SelfAlignConfig

# Topics that a started list shows, at most.
_SHOWN = 5


@dataclass(frozen=True)
class TopicRound:
    """What a round of topics brought: `kept` as (kind, topic), all `made`, drops by rule."""

    made: int
    kept: list[tuple[str, str]]
    dropped: dict[str, int]


def known_topics(kinds: Sequence[HardKind], rounds: Sequence[TopicRound]) -> dict[str, list[str]]:
    """The topics of each kind: its own, and those that rounds have brought."""
    topics = {kind.name: [kind.topic] for kind in kinds}
    for one_round in rounds:
        for kind, topic in one_round.kept:
            topics[kind].append(topic)
    return topics


def kinds_that_lack(
    kinds: Sequence[HardKind], topics: dict[str, list[str]], wanted: int
) -> list[HardKind]:
    """The kinds with fewer topics than wanted, beside their own."""
    return [kind for kind in kinds if len(topics[kind.name]) <= wanted]


def write_topics(
    config: SelfAlignConfig,
    writer: Writer,
    kinds: Sequence[HardKind],
    topics: dict[str, list[str]],
    round_number: int,
    tell: Callable[[int, int], None],
) -> TopicRound:
    """One round: every kind that lacks topics is asked for more."""
    settings = config.self_align.instructions
    draws = round_draws(config.seed, round_number, Purpose.TOPICS)
    lacking = kinds_that_lack(kinds, topics, settings.topics_per_kind)
    asked = []
    for kind in lacking:
        known = topics[kind.name]
        shown = draws.permutation(len(known))[:_SHOWN]
        asked.append(ask_topics(kind, [known[place] for place in shown]))
    tokens = settings.max_topic_tokens
    lists = writer.lists(asked, round_number, Purpose.TOPICS, tokens, len(kinds), tell)
    kept: list[tuple[str, str]] = []
    dropped: Counter[str] = Counter()
    for kind, entries in zip(lacking, lists):
        new, faults = _sorted_out(entries, topics[kind.name], settings.topics_per_kind)
        kept += [(kind.name, topic) for topic in new]
        dropped += faults
    return TopicRound(sum(map(len, lists)), kept, dict(dropped))


def _sorted_out(
    entries: Sequence[Entry], known: Sequence[str], wanted: int
) -> tuple[list[str], Counter[str]]:
    seen, kept, dropped = {topic.casefold() for topic in known}, [], Counter()
    for entry in entries:
        topic = entry.text.strip(" .,;:!?")
        fault = topic_broken_by(topic) if entry.finished else "unfinished"
        if not fault and topic.casefold() in seen:
            fault = "duplicate"
        if not fault and len(known) + len(kept) > wanted:
            fault = "kind_full"
        if fault:
            dropped[fault] += 1
        else:
            seen.add(topic.casefold())
            kept.append(topic)
    return kept, dropped
