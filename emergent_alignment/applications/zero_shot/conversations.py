"""The journal of conversations: every review of `chat` and `serve`, numbered on from start to
start, with what was said in the end."""

import fcntl
import json
import re
import threading
from pathlib import Path

from emergent_alignment.conscience.conscience import Response
from emergent_alignment.conscience.journal import Journal
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.errors import UserError


class ConversationJournal:
    """A folder of journal shards that this process alone writes, from any thread.

    A step is one request or turn, a place one of its answers. It holds what people wrote: only
    its owner reads it. Raises UserError where another process writes there.
    """

    def __init__(self, directory: Path):
        lock = directory / ".lock"
        if lock.exists() or not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        self._lock_file = lock.open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{directory}: another process writes this journal; name another folder"
            ) from None
        self._step = _next_step(directory)
        self._journal = Journal(directory, first_step=self._step)
        for shard in directory.glob("*.jsonl"):
            shard.chmod(0o600)
        self._turn = threading.Lock()

    @property
    def path(self) -> Path:
        """The shard of this start."""
        return self._journal.path

    def write(self, responses: list[Response], **more: object) -> int:
        """Record the answers to one request, which are on the disk once this returns; its step."""
        with self._turn:
            step = self._step
            self._step += 1
            self._journal.write(
                [
                    journal_record(response.reviewed, step=step, place=place, row=0)
                    | {"final": response.final, "refused": response.refused}
                    | more
                    for place, response in enumerate(responses)
                ]
            )
        return step

    def close(self) -> None:
        """Close the shard, and let others write here."""
        with self._turn:
            self._journal.close()
            self._lock_file.close()


def _next_step(directory: Path) -> int:
    """One more than the last step there. A line that cannot be read is no reason not to serve."""
    shards = sorted(directory.glob("step-*.jsonl"))
    if not shards:
        return 0
    first = re.match(r"step-(\d+)", shards[-1].name)
    steps = [int(first[1]) - 1] if first else [-1]
    for line in shards[-1].read_bytes().splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, RecursionError, TypeError, KeyError):
            continue
        steps += [step] if type(step) is int and 0 <= step < 1 << 40 else []
    return max(steps) + 1
