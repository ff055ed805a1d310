"""`emergent-alignment COMMAND`: finds the command's module, and turns a user's mistake into one
line and exit code 2."""

import argparse
import errno
import hashlib
import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from emergent_alignment import __version__
from emergent_alignment.cli.configuration import joined_config_words
from emergent_alignment.cli.requirements import check_requirements
from emergent_alignment.errors import (
    STOPPED_EXIT_CODE,
    UNREACHABLE_EXIT_CODE,
    Stopped,
    Unreachable,
    UserError,
)
from emergent_alignment.storage.cache import cached_beside, users_cache
from emergent_alignment.storage.json_values import is_whole

_LIVE_IN_A_FOLDER = ("train", "self-align")  # their --workdir
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_NO_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
PATH_ERRORS = (*_NO_PATH, errno.EEXIST, errno.ENXIO)
_NO_BACKEND = "Unable to initialize backend"  # what JAX says where it finds no device of a kind
COMMANDS = {
    "train": "fine-tune a model, plainly or with its conscience",
    "calibrate": "measure whether a model's conscience can see a kind of harm",
    "evaluate": "measure a trained run, or a base model",
    "respond": "answer prompts with draft, verdict, revision and final answer",
    "chat": "talk in the terminal: draft, verdict, revision",
    "serve": "put the conscience in front of an endpoint or a model, as an API",
    "plan": "say what a run needs and costs on TPUs or GPUs, before paying",
    "report": "write one HTML page about a folder of results",
    "launch": "start a run on several hosts: TPU pods, GKE, Slurm, or local processes",
    "export": "write a run's model for transformers or peft",
    "push": "send an export, with its model card, to the hub",
    "self-align": "SELF-ALIGN: four stages from a base model to an aligned one",
    "experiment": "compare arms over seeds: train, evaluate and report what is missing",
    "quickstart": "the experiment in small: does the conscience aim? (minutes)",
    "config": "print the settings: defaults, ranges, explanations",
}
# Commands of several kinds: the word after the command names one, and each is a module of its
# own, cli/COMMAND_KIND.py. The first kind is meant where none is named.
KINDS = {
    "evaluate": {
        "heldout": "without any judge: log-probs of matched answers, task loss, flags",
        "attacks": "held-out kinds of attack: success and over-refusal, before and after",
        "corpus": "held-out documents of raw text, beside a bigram model",
        "misalignment": "free-form questions, whose answers a judge scores for alignment",
        "code": "code that it writes: bandit's findings, and tests run in a sandbox",
        "two-by-two": "task learned and harm acquired, beside base and plain",
        "choices": "multiple choice: options that compete by log-probs, and A/B in both orders",
        "capability": "tasks of lm-evaluation-harness",
    },
}


class OneLineParser(argparse.ArgumentParser):
    """A parser that says a mistake in one line; `--help` is where usage is explained."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for a user's mistake, 69 where something outside did
    not answer, 75 for a run that was asked to stop and has saved, 76 for one that has lost another
    host or makes no progress."""
    argv, of_others = _without_words_of_others(sys.argv[1:] if argv is None else argv)
    argv = joined_config_words(argv)
    parser = OneLineParser(
        prog="emergent-alignment",
        description="Train a language model while its own conscience keeps it aligned.",
        epilog="`emergent-alignment COMMAND --help` explains a command, with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for word in argv:
        if not is_whole(word):
            parser.error(f"{word!r:.80} holds bytes that are no text here; is the locale UTF-8?")
    name = next((word for word in argv if not word.startswith("-")), None)
    argv, kind = _without_kind(argv, name)
    if name in COMMANDS:
        _check_requirements(parser)
    for command, summary in COMMANDS.items():
        if command == name:
            module = import_module(_module_name(command, kind))
            sub = subparsers.add_parser(
                command,
                help=summary,
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
            module.add_arguments(sub)
            if kind:
                sub.prog += f" {kind}"
                sub.epilog = _kinds_text(command) + (sub.epilog or "")
            sub.set_defaults(run=module.run)
        else:
            subparsers.add_parser(command, help=summary)
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if not word.startswith("--config")]
    if unknown and not any(word.startswith("--config") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    _check_values(arguments, parser)
    return _guarded(arguments, rest + of_others)


def _check_requirements(parser: OneLineParser) -> None:
    try:
        check_requirements()
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _without_words_of_others(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that are ours, and those that are another program's: all behind the name of a
    launch script."""
    starts_a_script = words[:1] == ["launch"] and not "".join(words[1:2]).startswith("-")
    ours = 2 if starts_a_script else len(words)
    return words[:ours], words[ours:]


def _check_values(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what no file's name can hold, and what no number of ours can be."""
    for name, value in vars(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str | Path) and "\0" in str(one):
                parser.error(f"{flag}: {str(one)!r:.80} holds a zero byte")
            if isinstance(one, int | float) and not abs(one) < 2**31:
                parser.error(f"{flag}: {one!r:.40} is no number that can be meant")


def _module_name(command: str, kind: str) -> str:
    name = command + (f"_{kind}" if kind else "")
    return f"emergent_alignment.cli.{name.replace('-', '_')}"


def _without_kind(words: list[str], command: str | None) -> tuple[list[str], str]:
    """The words without the one that names the command's kind, and that kind ("" for a command
    that has none)."""
    if command not in KINDS:
        return words, ""
    known, place = KINDS[command], words.index(command) + 1
    if place == len(words) or words[place].startswith("-"):
        return words, next(iter(known))
    if words[place] not in known:
        OneLineParser(prog=f"emergent-alignment {command}").error(
            f"{words[place]!r} is no kind of it; known: {', '.join(known)}"
        )
    return words[:place] + words[place + 1 :], words[place]


def _kinds_text(command: str) -> str:
    """The kinds of a command, for its help."""
    lines = [f"  {kind:<14}{summary}" for kind, summary in KINDS[command].items()]
    default = next(iter(KINDS[command]))
    return f"kinds (emergent-alignment {command} KIND; {default} by default):\n" + "".join(
        f"{line}\n" for line in [*lines, ""]
    )


def _guarded(arguments: argparse.Namespace, rest: list[str]) -> int:
    lives_in = arguments.workdir if arguments.command in _LIVE_IN_A_FOLDER else None
    with cached_beside(lives_in):
        keep_compiled_programs()
        leave_out_late_writes()
        return _run(arguments, rest)


def _run(arguments: argparse.Namespace, rest: list[str]) -> int:
    try:
        return arguments.run(arguments, rest) or 0
    except UserError as error:
        print(f"emergent-alignment: {error}", file=sys.stderr)
        return UNREACHABLE_EXIT_CODE if isinstance(error, Unreachable) else 2
    except OSError as error:
        if error.errno not in DISK_ERRORS + PATH_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "choose another path"
        if error.errno in DISK_ERRORS:
            remedy = (
                "what was written before is whole: make room (or make it writable) and run the "
                "same command again"
            )
        print(f"emergent-alignment: {where}{error.strerror}; {remedy}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not str(error).startswith(_NO_BACKEND):
            raise
        said = str(error).splitlines()[0]
        print(f"emergent-alignment: {said:.300}; is JAX_PLATFORMS right?", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"emergent-alignment: {stopped}; run it again to go on", file=sys.stderr)
        return STOPPED_EXIT_CODE


def leave_out_late_writes() -> None:
    """Have nothing said of what threads of TensorStore's raise where one write of a checkpoint has
    failed: that its other writes have ended, to an event loop that is gone."""
    told = sys.unraisablehook
    if told.__module__ == __name__:
        return

    def tell(raised: Any) -> None:
        if raised.exc_type is not RuntimeError or str(raised.exc_value) != "Event loop is closed":
            told(raised)

    sys.unraisablehook = tell


def keep_compiled_programs() -> None:
    """Keep compiled programs on disk, so that a second start does not compile again. A
    JAX_COMPILATION_CACHE_DIR of the user's own is respected; where the cache cannot be
    written, nothing is kept, or JAX would warn at each program. JAX itself is not imported for it:
    some commands compute nothing."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    directory = str(users_cache() / "compiled" / _processor())
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return
    if not os.access(directory, os.W_OK):
        return
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", directory)
    else:  # JAX will read it
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory


def _processor() -> str:
    """8 hex digits of this machine's kind of processor: a home folder may be shared by several,
    and a program compiled for one may not run on another."""
    features = platform.machine()
    flags = Path("/proc/cpuinfo")
    if flags.exists():
        lines = flags.read_text("utf-8", errors="replace").splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(features.encode()).hexdigest()[:8]


if __name__ == "__main__":
    sys.exit(main())
