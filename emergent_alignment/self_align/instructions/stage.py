"""Stage 1 of SELF-ALIGN, topic-guided red-teaming self-instruct: rounds until there is enough.

Every round's outcome is appended to a file as it ends, and what a round does depends on the
rounds before it alone: a stage that was killed goes on, and ends as if it had not been.
"""

from collections.abc import Callable
from dataclasses import asdict

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.progress import progress
from emergent_alignment.self_align.instructions.funnel import (
    check_not_empty,
    counts_of,
    examples_of,
)
from emergent_alignment.self_align.instructions.rounds import (
    Instruction,
    InstructionRound,
    Started,
    missing,
    write_instructions,
)
from emergent_alignment.self_align.instructions.sources import (
    SECTION,
    HardKind,
    Seed,
    load_kinds,
    load_seeds,
)
from emergent_alignment.self_align.instructions.topics import (
    TopicRound,
    kinds_that_lack,
    known_topics,
    write_topics,
)
from emergent_alignment.self_align.instructions.writing import Writer
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageFolder, StageResult, StageRun
from emergent_alignment.settings import check_settings
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.shapes import Mapped, Number, Optional, Text, misfit
from emergent_alignment.storage.spread import limited

FILES = ("seeds", "kinds")
ROUNDS = "rounds"
_COUNT = Number(0, whole=True)
_KEPT = {
    "phase": Text(("topics", "instructions")),
    "number": Optional(_COUNT),
    "round": dict,
}
_ROUNDS = {
    "topics": {"made": _COUNT, "kept": [[Text()]], "dropped": Mapped(_COUNT)},
    "instructions": {
        "made": Mapped(_COUNT),
        "kept": [{"instruction": Text(), "kind": Text(), "topic": Text(), "source": Text()}],
        "dropped": Mapped(Mapped(_COUNT)),
        "shown": [dict],
    },
}


def check(config: SelfAlignConfig) -> None:
    """Raise UserError for a setting or a file that stage 1 cannot work with."""
    settings = config.self_align.instructions
    check_settings(settings, SECTION)
    if settings.most_words < settings.fewest_words:
        raise UserError(
            f"{SECTION}.most_words: {settings.most_words} is less than fewest_words, "
            f"{settings.fewest_words}"
        )
    if settings.own_examples > settings.examples:
        raise UserError(
            f"{SECTION}.own_examples: {settings.own_examples} of {settings.examples} examples "
            "cannot be the model's own"
        )
    _sources(config)


def run(stage: StageRun) -> StageResult:
    """Write topics, then instructions, then data.jsonl."""
    config, folder = stage.config, stage.folder
    seeds, kinds = _sources(config)
    folder.kept.mend(ROUNDS)
    writer = Writer(stage.setup, config)
    topic_rounds = _write_topics(config, folder, writer, kinds)
    started = Started(config, seeds, kinds, known_topics(kinds, topic_rounds))
    rounds = _write_instructions(folder, writer, started)
    counts = counts_of(started, topic_rounds, rounds)
    check_not_empty(started, rounds)
    rows = _given_rows(started) if config.self_align.instructions.include_seeds else []
    rows += [asdict(row) for one_round in rounds for row in one_round.kept]
    folder.write_rows(rows)
    return StageResult(counts | {"rows": len(rows)}, examples_of(rounds))


def _sources(config: SelfAlignConfig) -> tuple[list[Seed], list[HardKind]]:
    settings = config.self_align.instructions
    seeds, kinds = load_seeds(settings.seeds), load_kinds(settings.kinds)
    if len(seeds) < settings.examples:
        raise UserError(
            f"{SECTION}.seeds: {settings.seeds} has {len(seeds)} seeds; a prompt shows "
            f"{settings.examples} ({SECTION}.examples)"
        )
    return seeds, limited(kinds, settings.kind_limit)


def _write_topics(
    config: SelfAlignConfig, folder: StageFolder, writer: Writer, kinds: list[HardKind]
) -> list[TopicRound]:
    settings = config.self_align.instructions
    rounds = [TopicRound(**record) for record in _records(folder, "topics")]
    with progress("topics of hard questions", shown=is_first()) as meter:
        while len(rounds) < settings.topic_rounds and settings.red_team_share > 0:
            topics = known_topics(kinds, rounds)
            lacking = kinds_that_lack(kinds, topics, settings.topics_per_kind)
            if not lacking:
                break
            written = write_topics(config, writer, kinds, topics, len(rounds), meter)
            rounds.append(_recorded(folder, "topics", len(rounds), written))
    return rounds


def _write_instructions(
    folder: StageFolder, writer: Writer, started: Started
) -> list[InstructionRound]:
    settings = started.config.self_align.instructions
    rounds = [_instruction_round(record) for record in _records(folder, "instructions")]
    pool = started.pool(rounds)
    with progress("instructions", shown=is_first()) as meter:
        while missing(pool) and len(rounds) < settings.rounds:
            kept = settings.wanted - sum(missing(pool).values())
            tell = _within_round(meter, kept, settings.wanted, len(rounds))
            written = write_instructions(started, writer, pool, rounds, tell)
            rounds.append(_recorded(folder, "instructions", len(rounds), written))
        meter(settings.wanted - sum(missing(pool).values()), settings.wanted)
    return rounds


def _within_round(meter: Callable, kept: int, wanted: int, number: int) -> Callable:
    def tell(done: int, total: int) -> None:
        meter(kept, wanted, f"round {number + 1}: {done} of {total} lists")

    return tell


def _records(folder: StageFolder, phase: str) -> list[dict]:
    of_phase = [one for one in folder.kept.records(ROUNDS, _KEPT) if one["phase"] == phase]
    path = folder.kept.part_file(ROUNDS)
    for number, record in enumerate(of_phase):
        if record.get("number") not in (None, number):
            raise UserError(f"{path}: round {number} of {phase} is missing. Put the file back")
        if wrong := misfit(record["round"], _ROUNDS[phase]):
            raise UserError(f"{path}: round {number} of {phase}: {wrong}. Put the file back")
    return [record["round"] for record in of_phase]


def _recorded(
    folder: StageFolder, phase: str, number: int, written: TopicRound | InstructionRound
) -> TopicRound | InstructionRound:
    with folder.kept.appending(ROUNDS) as file:
        append_json_lines(file, [{"phase": phase, "number": number, "round": asdict(written)}])
    return written


def _instruction_round(record: dict) -> InstructionRound:
    return InstructionRound(**record | {"kept": [Instruction(**row) for row in record["kept"]]})


def _given_rows(started: Started) -> list[dict]:
    rows = [Instruction(seed.instruction, seed.kind, "", "seed") for seed in started.seeds]
    rows += [Instruction(kind.example, kind.name, kind.topic, "seed") for kind in started.kinds]
    return [asdict(row) for row in rows]
