"""Where a compiled program's time goes, by the function of ours that asked for each operation.

The profiler says when each operation of the compiled program ran; the program's text says which
stack of Python functions each operation comes from.
"""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.profiler import ProfileData

NOTHING = "no operation runs"
OTHER = "other"
_CONTAINERS = ("while", "call", "conditional", "fusion.call")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = ")


@dataclass(frozen=True)
class Origin:
    """Where an instruction comes from: the functions that asked for it, innermost first, and
    whether it belongs to the forward pass, the recomputed one, or the backward pass."""

    functions: tuple[str, ...]
    direction: str


@dataclass(frozen=True)
class Span:
    """One run of one instruction."""

    instruction: str
    start: float
    end: float


def trace(run: Callable[[], object]) -> list[Span]:
    """The spans of the operations of `run`, in seconds; operations that only hold others (loops,
    branches) are left out."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory(prefix="trace-") as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            jax.block_until_ready(run())
        path = next(Path(directory).rglob("*.xplane.pb"))
        events = [
            (dict(event.stats).get("hlo_op"), event.start_ns, event.duration_ns)
            for plane in ProfileData.from_file(str(path)).planes
            for line in plane.lines
            for event in line.events
        ]
    return [
        Span(name, start / 1e9, (start + duration) / 1e9)
        for name, start, duration in events
        if name and not name.startswith(_CONTAINERS)
    ]


def origins(text: str) -> dict[str, Origin]:
    """The origin of every instruction of a compiled program, from its text."""
    functions = dict(_numbered(text, "FunctionNames", r'(\d+) "(.*)"'))
    locations = dict(_numbered(text, "FileLocations", r"(\d+) \{.*function_name_id=(\d+)"))
    frames = {
        frame: (location, parent)
        for frame, location, parent in _numbered(
            text, "StackFrames", r"(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)"
        )
    }

    def stack(frame: str) -> Iterable[str]:
        while frame in frames:
            location, parent = frames[frame]
            yield functions[locations[location]]
            frame = parent if parent != frame else ""

    origins = {}
    for line in text.splitlines():
        name = _INSTRUCTION.match(line)
        if name:
            frame = re.search(r"stack_frame_id=(\d+)", line)
            operation = re.search(r'op_name="([^"]*)"', line)
            origins[name[1]] = Origin(
                tuple(stack(frame[1])) if frame else (),
                _direction(operation[1] if operation else ""),
            )
    return origins


def _numbered(text: str, title: str, pattern: str) -> list[tuple[str, ...]]:
    """The lines of a table at the head of the program's text."""
    table = text.split(f"\n{title}\n", 1)[1].split("\n\n", 1)[0]
    return [match.groups() for match in map(re.compile(pattern).match, table.splitlines()) if match]


def _direction(operation: str) -> str:
    if "rematted_computation" in operation:
        return "recomputed"
    return "backward" if "transpose(" in operation else "forward"


def shares(spans: list[Span], total: float, name: Callable[[str], str]) -> dict[str, float]:
    """Seconds of `total` that each named part took. Where several operations run at once, the
    time is shared between them; what is left is `NOTHING`."""
    moments = sorted(
        [(span.start, 1, span.instruction) for span in spans]
        + [(span.end, -1, span.instruction) for span in spans]
    )
    active: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    before = 0.0
    for moment, change, instruction in moments:
        running = active.total()
        for other, count in active.items() if running else ():
            seconds[name(other)] += (moment - before) * count / running
        active[instruction] += change
        if not active[instruction]:
            del active[instruction]
        before = moment
    seconds[NOTHING] = max(total - sum(seconds.values()), 0.0)
    return dict(seconds)


def part_of(origin: Origin | None, parts: Mapping[str, set[str]]) -> str:
    """The part that the innermost known function belongs to."""
    for function in origin.functions if origin else ():
        own = function.split(".<locals>")[0]
        for part, functions in parts.items():
            if function in functions or own in functions:
                return part
    return OTHER
