"""A profile of some steps, for TensorBoard, Perfetto or XProf."""

from pathlib import Path

import jax

from emergent_alignment.errors import UserError


def profile_steps(text: str) -> range:
    """`10:12` as the steps 10 and 11. Raises UserError for anything else."""
    first, colon, stop = text.partition(":")
    if not (colon and first.isdigit() and stop.isdigit() and int(first) < int(stop)):
        raise UserError(f"--profile-steps: {text!r} is not FIRST:STOP, such as 10:12")
    return range(int(first), int(stop))


class Profiler:
    """Traces the steps of `steps` into `directory`; with an empty range, none."""

    def __init__(self, steps: range, directory: Path):
        self._steps, self._directory, self._tracing = steps, directory, False

    def before(self, step: int) -> None:
        """Start at the first of the steps (or in their midst, where a run is resumed)."""
        if step in self._steps and not self._tracing:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True

    def after(self, step: int) -> None:
        """Stop after the last one."""
        if self._tracing and step + 1 not in self._steps:
            self.close()

    def close(self) -> None:
        """Stop, and write what there is."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
