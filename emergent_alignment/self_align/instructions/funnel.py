"""What stage 1 kept and dropped, by which rule; and the error where nothing is left."""

from collections import Counter
from collections.abc import Sequence

from emergent_alignment.errors import UserError
from emergent_alignment.self_align.instructions.rounds import (
    RED_TEAM,
    SELF_INSTRUCT,
    InstructionRound,
    Started,
)
from emergent_alignment.self_align.instructions.rules import INSTRUCTION_RULES, TOPIC_RULES
from emergent_alignment.self_align.instructions.sources import SECTION
from emergent_alignment.self_align.instructions.topics import TopicRound

# Examples that the report shows: of what is kept, and of each rule that drops.
_SHOWN_KEPT, _SHOWN_DROPPED = 40, 5


def counts_of(
    started: Started, topics: Sequence[TopicRound], rounds: Sequence[InstructionRound]
) -> dict:
    """The funnel: made = kept + dropped, over all and for each generator; of topics likewise."""
    kept = [row for made in rounds for row in made.kept]
    kinds = Counter(row.kind for row in kept if row.source == RED_TEAM)
    sources = {source: _of_source(rounds, source) for source in (SELF_INSTRUCT, RED_TEAM)}
    return {
        "wanted": started.config.self_align.instructions.wanted,
        "made": sum(part["made"] for part in sources.values()),
        "kept": len(kept),
        "dropped": _by_rule(*(part["dropped"] for part in sources.values())),
        "sources": sources,
        "kinds": {kind.name: kinds[kind.name] for kind in started.kinds},
        "topics": {
            "made": sum(made.made for made in topics),
            "kept": sum(len(made.kept) for made in topics),
            "dropped": _by_rule(*(made.dropped for made in topics), rules=TOPIC_RULES),
        },
        "rounds": len(rounds),
    }


def examples_of(rounds: Sequence[InstructionRound]) -> list[dict]:
    """Some of what was kept (outcome "kept"), spread over the rounds, and some of what each rule
    dropped (the rule as outcome), with the kept text that it is like."""
    kept = [vars(row) | {"outcome": "kept"} for one_round in rounds for row in one_round.kept]
    step = max(-(-len(kept) // _SHOWN_KEPT), 1)
    examples, shown = kept[::step], Counter()
    for row in (row for one_round in rounds for row in one_round.shown):
        shown[row["rule"]] += 1
        if shown[row["rule"]] <= _SHOWN_DROPPED:
            examples.append({name: row[name] for name in row if name != "rule"})
            examples[-1]["outcome"] = row["rule"]
    return examples


def check_not_empty(started: Started, rounds: Sequence[InstructionRound]) -> None:
    """Raise UserError where a generator that was to write instructions has none left."""
    settings, quotas = started.config.self_align.instructions, started.quotas()
    own = quotas.pop(SELF_INSTRUCT)
    for source, wanted in ((SELF_INSTRUCT, own), (RED_TEAM, sum(quotas.values()))):
        counts = _of_source(rounds, source)
        if not wanted or counts["kept"]:
            continue
        dropped = sorted(counts["dropped"].items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{rule} {number}" for rule, number in dropped) or "none was written"
        advice = INSTRUCTION_RULES[dropped[0][0]] if dropped else "raise max_new_tokens"
        raise UserError(
            f"{SECTION}: no {source} instruction is left of {counts['made']} in {len(rounds)} "
            f"rounds (dropped: {said}); {advice}, or raise rounds ({settings.rounds}), and choose "
            "another --workdir"
        )


def _of_source(rounds: Sequence[InstructionRound], source: str) -> dict:
    return {
        "made": sum(one_round.made.get(source, 0) for one_round in rounds),
        "kept": sum(row.source == source for one_round in rounds for row in one_round.kept),
        "dropped": _by_rule(*(one_round.dropped.get(source, {}) for one_round in rounds)),
    }


def _by_rule(*parts: dict[str, int], rules: dict = INSTRUCTION_RULES) -> dict[str, int]:
    """Summed, in the order of the rules; those that dropped nothing are left out."""
    total = sum(map(Counter, parts), Counter())
    return {rule: total[rule] for rule in rules if total[rule]}
