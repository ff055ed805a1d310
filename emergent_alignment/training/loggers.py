"""Where a run is shown while it goes, beside its own metrics.jsonl: TensorBoard, wandb, trackio, or
a logger of the user's own. Nothing of it is ever read back, and a run does not end of it."""

import errno
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from emergent_alignment.errors import UserError
from emergent_alignment.own_functions import is_function_name, named_function
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import Text
from emergent_alignment.training.board import FOLDER, Board, as_markdown

_FIELD = "config.training.loggers"
_ID_FILE = "loggers.json"


@dataclass(frozen=True)
class ShownRun:
    """What a logger is told of a run: its folder, the step that this start begins with, its
    settings by dotted name, and the project that it belongs to."""

    workdir: Path
    first_step: int
    settings: Mapping[str, Any]
    project: str

    def id(self) -> str:
        """The same at every start in this folder."""
        path = self.workdir / _ID_FILE
        if not path.exists():
            write_json(path, {"id": uuid4().hex})
        return read_json_file(path, {"id": Text()}, "delete it: a new run is shown")["id"]


class Logger(Protocol):
    """What shows a run. The first host of a run has it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A step's scalars by name; some may not be finite. A run that goes on from a checkpoint
        tells a step again."""

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        """Some records of the journal (docs/finetuning.md), after so many steps."""

    def close(self) -> None:
        """The run is over."""


class Wandb:
    """Weights & Biases. WANDB_MODE=offline keeps everything in the run's folder, for `wandb
    sync`."""

    def __init__(self, shown: ShownRun):
        import wandb

        self._table = wandb.Table
        self._run = wandb.init(
            project=shown.project,
            name=shown.workdir.resolve().name,
            id=shown.id(),
            resume="allow",
            dir=shown.workdir,
            config=dict(shown.settings),
            settings=wandb.Settings(console="off"),  # progress bars are no log
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(_finite(values), step=step)

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        rows = [list(_columns(record).values()) for record in records]
        if rows:
            table = self._table(columns=list(_columns(records[0])), data=rows)
            self._run.log({"journal": table}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """trackio: a board of one's own, kept on this machine (TRACKIO_DIR), shown by `trackio
    show`."""

    def __init__(self, shown: ShownRun):
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            project=shown.project,
            name=f"{shown.workdir.resolve().name}-{shown.id()[:8]}",
            resume="allow",
            config={name: str(value) for name, value in shown.settings.items()},
            embed=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(_finite(values), step=step)

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        for place, record in enumerate(records):
            shown = self._trackio.Markdown(as_markdown(record))
            self._run.log({f"journal/{place}": shown}, step=step)

    def close(self) -> None:
        self._run.finish()


def _board(shown: ShownRun) -> Board:
    return Board(shown.workdir / FOLDER, shown.first_step)


_KNOWN: dict[str, Callable[[ShownRun], Logger]] = {
    "tensorboard": _board,
    "wandb": Wandb,
    "trackio": Trackio,
}


class Loggers:
    """Several as one. One that fails is named on stderr, and told nothing more."""

    def __init__(self, names: Sequence[str], shown: ShownRun):
        makers = makers_of(names)
        self._loggers = {name: _started(name, make, shown) for name, make in makers.items()}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See Logger; so are those that follow."""
        self._each(lambda logger: logger.scalars(step, values))

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        self._each(lambda logger: logger.texts(step, records))

    def close(self) -> None:
        self._each(lambda logger: logger.close())

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                tell(logger)
            except UserError:
                raise
            except Exception as error:  # whatever a logger's own code and service come to
                if getattr(error, "errno", None) == errno.ENOSPC:  # it ends a run, whoever writes
                    raise
                del self._loggers[name]
                print(
                    f"{name} is told no more of this run: {type(error).__name__}: {error}",
                    file=sys.stderr,
                    flush=True,
                )


def makers_of(names: Sequence[str]) -> dict[str, Callable[[ShownRun], Logger]]:
    """What makes the loggers that config.training.loggers names. Raises UserError for a name that
    is none, and for one that is not installed."""
    makers = {}
    for name in names:
        if is_function_name(name):
            makers[name] = named_function(name, _FIELD, "(a ShownRun), which gives a logger")
        elif name not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise UserError(
                f"{_FIELD}: no logger is called {name!r}; there are {known}, and "
                "python:module.function"
            )
        elif name != "tensorboard" and not _is_installed(name):
            raise UserError(
                f"{_FIELD}: {name} is not installed; pip install 'emergent-alignment[{name}]'"
            )
        else:
            makers[name] = _KNOWN[name]
    return makers


def _is_installed(name: str) -> bool:
    """A mere folder of this name, as wandb makes them, is no package."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _started(name: str, make: Callable[[ShownRun], Logger], shown: ShownRun) -> Logger:
    try:
        return make(shown)
    except UserError:
        raise
    except Exception as error:  # no login, no network: what it is, the logger says
        raise UserError(
            f"{_FIELD}: {name} cannot start: {type(error).__name__}: {error}. Mend it, or leave "
            "it out; WANDB_MODE=offline needs neither login nor network"
        ) from None


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _columns(record: Mapping) -> dict[str, str]:
    return {
        "outcome": str(record["outcome"]),
        "prompt": str(record["prompt"][-1]["content"]),
        "candidate": str(record["candidate"]),
        "candidate score": str(record["candidate_score"]),
        "revision": str(record["revision"]),
        "revision score": str(record["revision_score"]),
    }
