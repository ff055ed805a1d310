"""Frozen copies of the policy, taken in the middle of a run: each on disk whole or not at all.

A copy is named by the step it was taken at. A resumed run reads it, so that it ends with the bits
of a run that was not interrupted.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from emergent_alignment.conscience.calibration import CALIBRATION
from emergent_alignment.errors import UserError
from emergent_alignment.storage.shapes import misfit
from emergent_alignment.training.marked_folders import MarkedFolder
from emergent_alignment.training.state import fingerprint

_DIGITS = "parameters"  # of the calibration's record: which parameters were saved beside it
_REMEDY = "move it and the checkpoints since then away, and it is made again"


class FrozenCopies:
    """The copies of one run, in `directory`; all of them are kept."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                enable_async_checkpointing=False,
                temporary_path_class=MarkedFolder,
                single_host_load_and_broadcast=True,
            ),
            item_names=("trainable", "calibration"),
        )

    def newest(self, step: int) -> int | None:
        """The step of the newest copy that is not of a later step than `step`."""
        return max((at for at in self._manager.all_steps() if at <= step), default=None)

    def save(self, step: int, trainable: Any, calibration: dict) -> None:
        """Keep the trainable parameters, and what calibration found of them."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                trainable=ocp.args.StandardSave(trainable),
                calibration=ocp.args.JsonSave(calibration | {_DIGITS: fingerprint(trainable)}),
            ),
            force=True,
        )
        self._manager.wait_until_finished()

    def restore(self, step: int, like: Any) -> tuple[Any, dict]:
        """The copy of a step, in arrays of its own with the shapes and shardings of `like`, and
        its calibration. Raises UserError where it is not what was saved."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        where = f"{self._directory / str(step)}: this frozen copy"
        try:
            copy = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    trainable=ocp.args.StandardRestore(abstract),
                    calibration=ocp.args.JsonRestore(),
                ),
            )
            trainable, calibration = copy["trainable"], dict(copy["calibration"])
        except jax.errors.JaxRuntimeError:  # another host is gone
            raise
        except Exception as error:  # whatever Orbax says of files that it did not write
            raise UserError(f"{where} cannot be read ({str(error)[:200]!r}); {_REMEDY}") from error
        if calibration.pop(_DIGITS, None) not in (None, fingerprint(trainable)):
            raise UserError(f"{where} is damaged: not what was saved; {_REMEDY}")
        if wrong := misfit(calibration, CALIBRATION):
            raise UserError(f"{where}: its calibration: {wrong}; {_REMEDY}")
        return trainable, calibration
