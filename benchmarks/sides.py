"""Two ways to make the same answers, in turns in this process: checked, timed and reported."""

import time
from collections.abc import Callable

import numpy as np
import tables
from turns import ThisProcess, quiet_note, quiet_turns

Side = Callable[[], list[list[int]]]


def same_answers(sides: dict[str, Side], one_in: int) -> list[int]:
    """The lengths of the answers of two sides. Raises SystemExit where more than one in so many
    differ, which ties do not explain."""
    first, second = (side() for side in sides.values())
    different = sum(one != other for one, other in zip(first, second))
    if different > len(first) // one_in:
        raise SystemExit(f"{different} of {len(first)} answers differ; nothing was timed")
    return [len(answer) for answer in first]


def timed(sides: dict[str, Side], repeats: int, patience: float) -> list:
    """Turns of [seconds, seconds of all threads of this process] of each side, with the share of
    the processor that others took."""

    def turn() -> dict[str, np.ndarray]:
        took = {}
        for name, side in sides.items():
            started = _clock()
            side()
            took[name] = _clock() - started
        return took

    return quiet_turns(turn, [ThisProcess()], repeats, patience)


def report(title: str, column: str, row: dict, turns: list, benchmark: str, keys: tuple) -> None:
    """The table, the ratio of the first side to the second, and the kept row."""
    wall, processor = (
        {name: [float(took[name][place]) for took, _ in turns] for name in turns[0][0]}
        for place in range(2)
    )
    rows = [
        [name, tables.seconds_text(wall[name]), tables.seconds_text(processor[name])]
        for name in wall
    ]
    tables.print_table(title, [column, "seconds", "processor time"], rows)
    base, other = wall
    ratios = [tables.ratio_of_pairs(took[other], took[base]) for took in (wall, processor)]
    print(f"{base} / {other}: {ratios[0]}, by processor time {ratios[1]}")
    row = row | {"seconds": wall, "processor_seconds": processor}
    row |= {"ratios": [vars(ratio) for ratio in ratios], "machine": tables.machine()}
    row["others_share"] = [share for _, share in turns]
    print(quiet_note([row]))
    print(f"Kept in {tables.keep_rows(benchmark, [row], keys)}")


def _clock() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])
