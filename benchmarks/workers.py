"""The parent's side: child processes that write inputs, or run one step when told.

Standard library alone: the parent holds no model while it measures.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_LOG_LINES = 15


class WorkerFailed(Exception):
    """A side said that it failed, or ended; the message holds the last lines of its log."""


@dataclass(frozen=True)
class Answer:
    """One step: how long it took, how long all its threads kept a core busy, the most memory its
    process has held, what it computed."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    result: dict


class Worker:
    """A child process that speaks worker_protocol; `prepared_seconds` from its start on. With a
    `checkout` of this repository, it runs that one's script on that one's package."""

    def __init__(
        self,
        name: str,
        python: Path | str,
        script: str,
        settings: dict,
        checkout: Path | None = None,
    ):
        self.name = name
        folder = HERE if checkout is None else checkout / "benchmarks"
        paths = {} if checkout is None else {"PYTHONPATH": str(checkout)}
        self._log = tempfile.NamedTemporaryFile("w+", prefix=f"{name}-", suffix=".log")
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), str(folder / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=worker_environment() | paths,
        )
        try:
            self._ask(settings)
        except BaseException:
            self.close()
            raise
        self.prepared_seconds = time.perf_counter() - started

    def step(self, **order) -> Answer:
        """Let the child run one step."""
        return Answer(**self._ask(order))

    def processor_seconds(self) -> float:
        """Processor time that the child has taken so far (Linux; 0 elsewhere)."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text("utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the child; its memory is free when this returns."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, content: dict) -> dict:
        try:
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(self._last_words("ended")) from None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(self._last_words(f"ended with {self._process.wait()}"))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(self._last_words(answer["error"]))
        return answer

    def _last_words(self, reason: str) -> str:
        lines = Path(self._log.name).read_text("utf-8", errors="replace").splitlines()
        return "\n".join([f"{self.name}: {reason}", *lines[-_LOG_LINES:]])


def worker_environment() -> dict[str, str]:
    """This process's environment without what would mix virtual environments, cache compiled
    programs or reach out."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "JAX_COMPILATION_CACHE_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONNOUSERSITE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


@dataclass(frozen=True)
class InputSettings:
    """Which inputs to write.

    small       a tiny random model in place of SmolLM2-135M
    rows        pairs, or prompts to continue
    prompt      tokens of each prompt
    response    tokens of each chosen and rejected answer
    rope_theta  another base of the rotary positions than the model's own, or None
    """

    small: bool
    rows: int
    prompt: int
    response: int
    rope_theta: float | None = None


def write_inputs(directory: Path, settings: InputSettings) -> None:
    """Write model, adapters and tokens (inputs.py) in a process that ends with it."""
    command = [
        sys.executable,
        str(HERE / "inputs.py"),
        str(directory),
        json.dumps(asdict(settings)),
    ]
    if subprocess.run(command, check=False, env=worker_environment()).returncode:
        raise WorkerFailed("the inputs could not be written (the message is above)")


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
