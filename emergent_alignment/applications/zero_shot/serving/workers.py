"""Who answers the requests that wait: threads that each take a batch of like requests.

An endpoint is asked by many threads, one request each. A model of ours has one thread, which
answers in one batch what waits and is asked for with the same settings.
"""

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.requests import ChatRequest
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.conscience.conscience import Response
from emergent_alignment.conscience.drafting import DraftSettings
from emergent_alignment.generation.wanted import check_wanted, while_wanted
from emergent_alignment.parallel.mesh import in_force


class QueueFull(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request that waits for its answers."""

    request: ChatRequest
    name: str
    answers: Future = field(default_factory=Future)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> tuple:
        """What requests must share to be answered in one batch."""
        request = self.request
        return (
            request.max_tokens,
            request.temperature,
            request.top_p,
            request.stop,
            request.seed,
        )


class Workers:
    """Threads that answer. `submit` from any thread; `close` lets what runs end."""

    def __init__(
        self,
        talker: ZeroShot,
        journal: ConversationJournal,
        metrics: Metrics,
        settings: ServeSettings,
    ):
        self._talker, self._journal, self._metrics = talker, journal, metrics
        self._settings = settings
        self._waiting: deque[_Waiting] = deque()
        self._running: set[_Waiting] = set()
        self._changed, self._closing = threading.Condition(), False
        self._threads = [
            threading.Thread(target=self._run, daemon=True) for _ in range(settings.num_threads)
        ]
        self._num_idle = settings.num_threads
        for thread in self._threads:
            thread.start()

    def submit(self, request: ChatRequest, name: str) -> Future:
        """The request's answers, one a choice, as a future: a list of Response, or what failed.
        Raises QueueFull. `name` is how journal and log call the request. Who cancels the future
        gives up its place.
        """
        waiting = _Waiting(request, name)
        with self._changed:
            if self._closing or len(self._waiting) >= self._settings.max_waiting + self._num_idle:
                raise QueueFull
            self._waiting.append(waiting)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        return waiting.answers

    def leave(self, answers: Future) -> None:
        """Nobody waits for these answers any more: they lose their place, or, where they are
        being made, no further call to an endpoint is made for them."""
        with self._changed:
            for waiting in [w for w in self._waiting if w.answers is answers]:
                self._waiting.remove(waiting)
            for waiting in [w for w in self._running if w.answers is answers]:
                waiting.gone.set()
            self._metrics.waiting.set(len(self._waiting))
        answers.cancel()

    def alive(self) -> bool:
        """Whether all threads run, and requests are taken."""
        return not self._closing and all(thread.is_alive() for thread in self._threads)

    def close(self, seconds: float) -> None:
        """Take no more, and wait so long for what runs."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))

    def _run(self) -> None:
        with in_force(self._talker.mesh):
            while self._answer_next():
                pass

    def _answer_next(self) -> bool:
        """Whether there was a batch. Nothing of it stays with the thread, which may wait for long:
        neither what was asked and answered, nor the trace of what failed."""
        batch = self._take()
        if not batch:
            return False
        self._metrics.running.inc(len(batch))
        try:
            with while_wanted(lambda: not all(w.gone.is_set() for w in batch)):
                self._answer(batch)
        except Exception as error:  # whatever it is, its requests must not wait for ever
            for waiting in batch:
                if not waiting.answers.done():
                    waiting.answers.set_exception(error)
        finally:
            self._metrics.running.dec(len(batch))
            with self._changed:
                self._num_idle += 1
                self._running.difference_update(batch)
        return True

    def _take(self) -> list[_Waiting]:
        """The oldest request that waits, and what can be answered with it; nothing at the end."""
        with self._changed:
            while not (batch := self._oldest_batch()):
                if self._closing:
                    return []
                self._changed.wait()
            self._num_idle -= 1
            self._running.update(batch)
            self._metrics.waiting.set(len(self._waiting))
            return batch

    def _oldest_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        for waiting in list(self._waiting):
            if batch and waiting.kind != batch[0].kind:
                continue
            rows = sum(w.request.num_choices for w in (*batch, waiting))
            if batch and rows > self._settings.batch_size:
                break
            self._waiting.remove(waiting)
            if waiting.answers.set_running_or_notify_cancel():
                batch.append(waiting)
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        """Draft, review and correct for all requests of a batch; what is answered has been
        recorded."""
        asked, conscience = batch[0].request, self._talker.conscience
        conversations = [w.request.messages for w in batch for _ in range(w.request.num_choices)]
        ids = [i for w in batch for i in range(w.request.num_choices)]
        if asked.seed is None:  # nobody's draws are to be repeated, and all must differ
            ids = list(range(len(conversations)))
        drafting = DraftSettings(asked.max_tokens, asked.temperature, asked.top_p, asked.stop)
        drafts = conscience.drafter.drafts(
            conversations, drafting, asked.seed, ids, lambda done, total: None
        )
        check_wanted()
        settings = replace(conscience.settings, max_new_tokens=asked.max_tokens, stop=asked.stop)
        responses = conscience.answered(conversations, drafts, asked.seed, ids, settings=settings)
        for waiting in batch:
            own = responses[: waiting.request.num_choices]
            responses = responses[len(own) :]
            self._record(waiting, own)
            waiting.answers.set_result(own)

    def _record(self, waiting: _Waiting, responses: list[Response]) -> None:
        user = waiting.request.user
        self._journal.write(responses, request=waiting.name, user=user)
        for response in responses:
            self._metrics.count_review(response)
