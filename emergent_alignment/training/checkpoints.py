"""Checkpoints: Orbax, asynchronous, the latest and the best kept. One is whole by a mark in it
(marked_folders.py).

A checkpoint holds the state, the number of steps done, digits that say which state it is, and who
the frozen parameters and the data are; restoring beside others, or another state than was saved, is
an error, never a fresh start.
"""

import logging
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.storage.shapes import Optional, Text, misfit
from emergent_alignment.training.marked_folders import MarkedFolder
from emergent_alignment.training.state import TrainState, fingerprint

_MOVE = "move it away to go on from the one before"
_IDENTITY = {"frozen": Text(), "data": Text(), "state": Optional(Text())}
KEPT = "the former checkpoints are whole: free space and run the same command again"


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to: fingerprints of the frozen parameters and of the data."""

    frozen: str
    data: str


class _RaisedAnyway(logging.Filter):
    """Orbax logs with its whole stack what it raises, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        return not (record.exc_info and "orbax" in record.pathname)


logging.getLogger("absl").addFilter(_RaisedAnyway())


class Checkpoints:
    """The checkpoints of one run, in `directory`. Their numbers are steps done. The best one is
    that of the least loss or, `by_figure`, of the highest figure that it was saved with."""

    def __init__(
        self, directory: Path, identity: RunIdentity, *, keep: int = 2, by_figure: bool = False
    ):
        self.directory, self.identity = directory, identity
        policies = [
            checkpoint_managers.LatestN(n=max(keep, 1)),
            checkpoint_managers.BestN(get_metric_fn=_figure if by_figure else _negative_loss, n=1),
        ]
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
                temporary_path_class=MarkedFolder,
                single_host_load_and_broadcast=True,
            ),
            item_names=("state", "identity"),
        )

    def latest(self) -> int | None:
        """Steps done at the newest checkpoint, None where there is none; the same on all hosts."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: TrainState, *, loss: float, figure: float | None = None
    ) -> None:
        """Write a checkpoint in the background; the former ones stay until it is whole.

        Raises UserError where the disk does not take it (this one or the one before).
        """
        if step == self.latest():
            return
        self._check_room(state)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_as_dict(state)),
                    identity=ocp.args.JsonSave(
                        vars(self.identity) | {"state": fingerprint(_as_dict(state))}
                    ),
                ),
                metrics={"loss": loss} | ({} if figure is None else {"figure": figure}),
                force=True,
            )
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """The state at `step` (default: the newest), in the shapes and shardings of `state`.

        Raises UserError for a checkpoint of another frozen model or another data set, one that
        cannot be read, or one that is not what was saved.
        """
        step = self.latest() if step is None else step
        where = self.directory / str(step)
        try:
            read = self._manager.restore(
                step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
            )
            self._check(where, read["identity"])
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_dict(state))
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )["state"]
        except (UserError, jax.errors.JaxRuntimeError):  # the latter: another host is gone
            raise
        except Exception as error:  # whatever Orbax says of files that it did not write
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{where}: this checkpoint cannot be read ({reason[:200]}); {_MOVE}"
            ) from error
        self._check_state(where, read["identity"], restored)
        return TrainState(restored["trainable"], restored["optimizer"])

    def wait(self) -> None:
        """Until what was saved is on the disk. Raises UserError where that failed."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        """Wait, and let go of the directory."""
        self.wait()
        self._manager.close()

    def _check(self, where: Path, saved: Any) -> None:
        if wrong := misfit(saved, _IDENTITY):
            raise UserError(f"{where}/identity: {wrong}; {_MOVE}")
        for name, meaning in (("frozen", "frozen model"), ("data", "data set")):
            if saved[name] != getattr(self.identity, name):
                raise UserError(
                    f"{where}: this checkpoint belongs to another {meaning} "
                    f"({saved[name]}, now {getattr(self.identity, name)}); use the former one, "
                    "or another --workdir"
                )

    def _check_state(self, where: Path, saved: dict[str, str], restored: dict) -> None:
        """Raise UserError where bits have changed on the disk."""
        if "state" not in saved:
            if is_first():
                print(
                    f"{where}: written before checkpoints had a digest of their state, and taken "
                    "as it is",
                    file=sys.stderr,
                )
        elif (now := fingerprint(restored)) != saved["state"]:
            raise UserError(
                f"{where}/state: this checkpoint is damaged: what is read of it is not what was "
                f"saved ({saved['state']}, now {now}); {_MOVE}"
            )

    def _check_room(self, state: TrainState) -> None:
        """Before writing: a disk that fills in the middle of it costs more to explain."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(_as_dict(state)))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise UserError(
                f"{self.directory}: a checkpoint needs {needed / 1e6:.1f} MB and "
                f"{free / 1e6:.1f} MB are free; {KEPT}"
            )

    def _write_error(self, error: OSError | ValueError) -> UserError:
        """TensorStore reports a failed write as a ValueError, with the reason at its end."""
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, OSError):
            raise error
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][-120:]
        return UserError(f"{self.directory}: a checkpoint could not be written ({reason}); {KEPT}")


def _negative_loss(metrics: Any) -> float:
    return -metrics["loss"]


def _figure(metrics: Any) -> float:
    return metrics.get("figure", -math.inf)


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {"trainable": state.trainable, "optimizer": state.optimizer}
