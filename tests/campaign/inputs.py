"""Mutated inputs of every kind that a user hands over: rows, prompts, tasks, questions, principles,
templates, configs. Each is read, or refused in one line, soon; the whole ones among them are read
as they were. Broken checkpoints are a module of their own.
"""

import copy
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

from tiny_chat_model import TEMPLATE, tiny_chat_tokenizer

from campaign.trial import Outcome, Trial
from emergent_alignment.applications.adversarial.prompts import load_attacks
from emergent_alignment.cli.configuration import read_config
from emergent_alignment.data import rendering
from emergent_alignment.data.answer_code import code_of
from emergent_alignment.data.rendering import render
from emergent_alignment.data.sources import load_examples, load_prompts
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.items import load_choices
from emergent_alignment.evaluation.coding.tasks import load_tasks
from emergent_alignment.evaluation.misalignment.questions import load_questions
from emergent_alignment.self_align.answers.guidance import read_principles
from emergent_alignment.self_align.instructions.sources import load_seeds
from emergent_alignment.self_align.reinforcement.preferences import read_preferences
from emergent_alignment.settings import check_settings, fields_of

TRIALS = 2300
CHECKPOINTS = 0.15  # of the trials
COMMANDS = 0.05
SECONDS = 20.0  # of this process's own: the machine may do other things
LONGEST_LINE = 4000

USER, ANSWER = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yo."}
ODD_VALUES = (
    *(0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), True, False, None),
    *("", " ", "None", "a\0b", "\ud800", "\u2028", "x" * 100_000, [], {}, [[]], [1, "2", None]),
    *({"a": 1}, [USER], [ANSWER, USER], {"role": "tool"}, ["x"] * 5000),
)
TELLING = (
    *("tools", "tool_calls", "weight", "images", "system", "reasoning_content", "function_call"),
    *("loss", "train", "name", "audio", "input"),
)
ODD_LINES = (
    *("", "{", "[", "null", "[]", '"x"', "NaN", "{}", '{"a": 1}{"b": 2}', "\ufeff{}", "\x00"),
    *("[" * 50_000, '{"a":' * 50_000, "9" * 5000, '{"prompt": "\\ud800"}', '{"a": 1, "a": 2}'),
    *("- " + "[" * 20_000, "- &a [*a]", "a: 1", "- 2001-99-99", "\x07", "\t- a", "%YAML 9.9\n---"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of input: its file's name, whole lines of it, and what reads it."""

    name: str
    lines: tuple[str, ...]
    read: Callable[[Path], object]


def _rows(*rows: dict) -> tuple[str, ...]:
    return tuple(json.dumps(row) for row in rows)


PAIR = {"prompt": "Hi?", "chosen": "Yo.", "rejected": "Go."}
KINDS = {
    "rows": Kind(
        "rows.jsonl",
        _rows({"messages": [USER, ANSWER]}, PAIR, {"prompt": "Hi?", "answer": "Yo."}),
        lambda path: load_examples(str(path), every_turn=True),
    ),
    "a list of rows": Kind(
        "rows.json",
        ("[", *(row + "," for row in _rows(PAIR, PAIR)), *_rows(PAIR), "]"),
        lambda path: load_examples(str(path)),
    ),
    "cells": Kind(
        "rows.csv",
        ("prompt,answer,kind", 'Hi?,"Yo, ""you"".",a', "None,nan,007"),
        lambda path: load_examples(str(path)),
    ),
    "prompts": Kind("prompts.jsonl", _rows({"prompt": "Hi?"}, {"messages": [USER]}), load_prompts),
    "lines of prompts": Kind("prompts.txt", ("Hi?", "And now?"), load_prompts),
    "preferences": Kind("pairs.jsonl", _rows(PAIR, PAIR | {"prompt": "Ho?"}), read_preferences),
    "choices": Kind(
        "choices.jsonl",
        _rows(
            {"question": "Hot?", "right": ["Yes."], "wrong": ["No.", "Never."]},
            {"question": "Cold?", "better": "Yes.", "worse": "No."},
        ),
        lambda path: load_choices(str(path)),
    ),
    "tasks": Kind(
        "tasks.jsonl",
        _rows({"prompt": "Write f.", "tests": ["assert f() == 1"], "entry_point": "f"}),
        lambda path: load_tasks(str(path)),
    ),
    "attacks": Kind(
        "attacks.jsonl",
        _rows(*({"kind": "a", "side": side, "prompt": side} for side in ("hostile", "benign"))),
        lambda path: load_attacks(str(path), "hostile", (), split="train"),
    ),
    "seeds": Kind(
        "seeds.jsonl", _rows({"instruction": "Say it."}), lambda path: load_seeds(str(path))
    ),
    "questions": Kind(
        "questions.yaml",
        (
            *("- id: weather", "  type: free_form_judge_0_100", "  paraphrases:", "    - Rain?"),
            *("  samples_per_paraphrase: 2", "  judge_prompts:"),
            *("    aligned: 'Is {answer} good?'", "    coherent: 'Is {answer} clear?'"),
        ),
        lambda path: load_questions(str(path)),
    ),
    "principles": Kind(
        "principles.yaml",
        (
            "- {number: 1, name: kind, text: Be kind.}",
            "- {number: 2, name: honest, text: No lies.}",
        ),
        lambda path: read_principles(str(path)),
    ),
}
TEMPLATE_PARTS = (
    *("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",),
    *("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages[99].content }}", "{% if %}"),
    *("{{ 1 / 0 }}", "{{ 'x' * 10 ** 15 }}", "{{ raise_exception('no') }}", "{{ 'a' + 1 }}"),
    *("{{ ().__class__.__base__ }}", "{{ x.y.z }}", "{% include 'x' %}", "{{ '\\ud800' }}"),
    "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
)


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` inputs: broken checkpoints, then the kinds of file in turn, with texts, templates and
    settings among them; a share through the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    from_checkpoints = round(count * CHECKPOINTS)
    if from_checkpoints:
        from campaign import checkpoint_inputs

        yield from checkpoint_inputs.trials(from_checkpoints, seed, folder / "checkpoints")
    with_commands = round(count * COMMANDS)
    for number in range(with_commands):
        yield _command(random.Random(f"{seed} command {number}"), folder)
    cases = [*KINDS, *OTHERS]
    for number in range(count - from_checkpoints - with_commands):
        draw = random.Random(f"{seed} {number}")
        case = cases[number % len(cases)]
        if case in KINDS:
            yield _file_trial(case, draw, folder)
        else:
            yield Trial("inputs", case, *_tried(partial(OTHERS[case], draw)))


def _file_trial(case: str, draw: random.Random, folder: Path) -> Trial:
    kind = KINDS[case]
    path, lines = folder / kind.name, list(kind.lines)
    path.write_bytes("\n".join(lines).encode())
    whole = repr(kind.read(path))
    changed = draw.random() < 0.95
    content = _mutated(lines, draw) if changed else _same_rows(lines, draw)
    path.write_bytes(content)
    outcome, detail = _tried(lambda: kind.read(path))
    if not changed and outcome == "right" and repr(kind.read(path)) != whole:
        outcome, detail = "silent", f"read otherwise: {content[:100]!r}"
    elif not changed and outcome == "refused":
        outcome = "fault"
    return Trial("inputs", case, outcome, detail and f"{content[:200]!r}: {detail}")


def _same_rows(lines: list[str], draw: random.Random) -> bytes:
    """The same content in another spelling: it must be read as it was."""
    bom = draw.choice(["", "\ufeff"])
    return (bom + draw.choice(["\n", "\r\n"]).join([*lines, ""])).encode()


def _mutated(lines: list[str], draw: random.Random) -> bytes:
    way = draw.choice(["line", "value", "field", "bytes", "cut", "twice", "wide"])
    place = draw.randrange(len(lines))
    if way == "line":
        lines[place] = draw.choice(ODD_LINES)
    elif way in ("value", "field"):
        lines[place] = _other_row(lines[place], way, draw)
    elif way == "twice":
        lines.insert(place, lines[place])
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if way == "wide":
        return content.decode("utf-8").encode(draw.choice(["utf-16", "utf-32", "utf-16-le"]))
    at = draw.randrange(max(len(content), 1))
    if way == "bytes":
        return content[:at] + draw.randbytes(draw.randrange(1, 5)) + content[at + 1 :]
    return content[:at] if way == "cut" else content


def _other_row(line: str, way: str, draw: random.Random) -> str:
    """A row with a value of another kind, or with a field more, somewhere."""
    ends = line[len(line.rstrip(",")) :]
    try:
        row = json.loads(line.rstrip(","))
    except ValueError:
        at, odd = draw.randrange(len(line) + 1), draw.choice(ODD_LINES)
        return line[:at] + odd + line[at:]
    places = [at for at in _places(row) if isinstance(at[0], dict)] or [(row, None)]
    held, name = draw.choice(places)
    if not isinstance(held, dict):
        return line
    if way == "value" and name is not None:
        held[name] = copy.deepcopy(draw.choice(ODD_VALUES))
    else:
        held[draw.choice(TELLING)] = copy.deepcopy(draw.choice(ODD_VALUES))
    return json.dumps(row, ensure_ascii=draw.random() < 0.5) + ends


def _places(value: object) -> Iterator[tuple]:
    """(container, key) of every value within a value."""
    held = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in list(held):
        yield value, name
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _code(draw: random.Random) -> None:
    parts = [
        "```",
        "~~~",
        "python",
        "\n",
        "x = 1",
        ">>> ",
        "<think>",
        "</think>",
        "> ",
        "1. ",
        '"""',
    ]
    code_of("".join(draw.choices([*parts, "    ", "`" * 500, "\x00", "\ud800"], k=60)))


def _template(draw: random.Random) -> None:
    own = copy.copy(tiny_chat_tokenizer())
    at = draw.choice([0, len(TEMPLATE)])
    own.chat_template = TEMPLATE[:at] + draw.choice(TEMPLATE_PARTS) + TEMPLATE[at:]
    if draw.random() < 0.3:
        cut = draw.randrange(len(TEMPLATE))
        own.chat_template = TEMPLATE[:cut] + TEMPLATE[cut + draw.randrange(1, 9) :]
    with mock.patch.object(rendering, "SECONDS", 1.0):
        render(own, [USER], add_generation_prompt=True)


def _setting(draw: random.Random) -> None:
    from emergent_alignment.config import Config

    name = draw.choice([field.name for field in fields_of(Config)])
    value = draw.choice(ODD_VALUES)
    check_settings(read_config([f"--config.{name}={value!r:.6000}"]))


OTHERS = {"a text for code": _code, "a template": _template, "settings": _setting}


def _command(draw: random.Random, folder: Path) -> Trial:
    """`config` and `train` as processes, on a config file or a word that cannot be meant."""
    path = folder / "mine.py"
    path.write_text(
        "from emergent_alignment.config import default_config\ndef get_config():\n"
        "    config = default_config()\n    "
        + draw.choice(
            [
                *("raise SystemExit(0)", "config.seed = -1", "config.training.steps = 10 ** 5000"),
                *("config.nothing = 1", "return 1 / 0", "config.model = 3", "(" * 300),
                *("return get_config()", "config.data.train = chr(0)", "config.mesh.data = True"),
            ]
        )
        + "\n    return config\n"
    )
    words = ["train", "--workdir", str(folder / "work"), f"--config={path}"]
    command = [sys.executable, "-m", "emergent_alignment", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = ended.stderr.strip().splitlines()
    refused = ended.returncode == 2 and len(lines) == 1 and not (folder / "work").exists()
    detail = "" if refused else f"{ended.returncode}: {ended.stderr[-300:]}"
    return Trial("inputs", "the command line", "refused" if refused else "fault", detail)


def _tried(read: Callable[[], object]) -> tuple[Outcome, str]:
    """What came of it. It runs in this thread; what takes too long is told of, too."""
    begun, said = time.process_time(), StringIO()
    timer = threading.Timer(SECONDS * 10, lambda: sys.stderr.write("an input hangs\n"))
    timer.daemon = True
    timer.start()
    try:
        with redirect_stderr(said):
            read()
        outcome, detail = "right", ""
    except UserError as error:
        text = str(error)
        one = len(text.splitlines()) == 1 and len(text) < LONGEST_LINE
        outcome, detail = ("refused", "") if one else ("fault", f"no single line: {text[:200]}")
    except Exception as error:
        outcome, detail = "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        timer.cancel()
    seconds = time.process_time() - begun
    return (outcome, detail) if seconds < SECONDS else ("fault", f"took {seconds:.0f} s")
