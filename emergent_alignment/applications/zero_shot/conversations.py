"""The journal of conversations: every review of `chat` and `serve`, numbered on from start to
start, with what was said in the end."""

import threading
from contextlib import ExitStack
from pathlib import Path

from emergent_alignment.conscience.conscience import Response
from emergent_alignment.conscience.journal import Journal, read_journal
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.storage.locks import locked


class ConversationJournal:
    """A folder of journal shards that this process alone writes, from any thread.

    A step is one request or turn, a place one of its answers. It holds what people wrote: only
    its owner reads it. Raises UserError where another process writes there.
    """

    def __init__(self, directory: Path):
        own = not directory.exists()
        self._alone = ExitStack()
        alone = locked(directory, "name another folder", does="writes this journal")
        self._alone.enter_context(alone)
        if own:
            directory.chmod(0o700)
        records = read_journal(directory)
        self._step = records[-1]["step"] + 1 if records else 0
        self._journal = Journal(directory, first_step=self._step, part_seconds=0)
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
            self._alone.close()
