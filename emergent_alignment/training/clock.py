"""Where a run's wall time goes: steps, data, sampling, review, evaluation, checkpoints,
compilation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

PARTS = ("step", "data", "sampling", "review", "evaluation", "checkpoint", "compile")
_COMPILING = "/jax/core/compile/backend_compile_duration"


class Clock:
    """Seconds by part; a part that stands inside another one is taken off it, and so is what
    was compiled meanwhile; and how many programs were. `with Clock() as clock:` is the wall time,
    and listens to JAX."""

    def __init__(self):
        self.compiled = 0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._inner = [0.0]
        self._began = 0.0

    def __enter__(self) -> "Clock":
        self._began = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What stands inside belongs to the part `name`."""
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[name] += max(spent - self._inner.pop(), 0.0)
            self._inner[-1] += spent

    def shares(self) -> dict[str, float]:
        """By part, and `other` for the rest (loading, logging), the share of the wall time so
        far. That of `step` is the goodput."""
        wall = time.perf_counter() - self._began
        seconds = self.seconds | {"other": wall - sum(self.seconds.values())}
        return {name: part / wall for name, part in seconds.items()}

    def _listen(self, event: str, duration: float, **_) -> None:
        if event == _COMPILING:
            self.compiled += 1
            self.seconds["compile"] += duration
            self._inner[-1] += duration
