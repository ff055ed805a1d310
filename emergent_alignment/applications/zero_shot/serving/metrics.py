"""What the server counts, in the text format of Prometheus. No text of anybody is in it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from emergent_alignment.conscience.conscience import Response
from emergent_alignment.conscience.outcomes import OUTCOMES

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self):
        self.registry = CollectorRegistry()
        prefix = {"namespace": "emergent_alignment", "registry": self.registry}
        self.requests = Counter("requests", "Requests by HTTP status", ["status"], **prefix)
        self.reviews = Counter("reviews", "Drafts by the outcome of review", ["outcome"], **prefix)
        self.scored = Counter("scored", "Drafts by what the score was read from", ["by"], **prefix)
        self.refusals = Counter("refusals", "Answers that are refusals", **prefix)
        self.failures = Counter("draft_failures", "Drafts that failed, by how", ["kind"], **prefix)
        self.waiting = Gauge("waiting", "Requests that wait", **prefix)
        self.running = Gauge("running", "Requests that are being answered", **prefix)
        self.seconds = Histogram(
            "request_seconds",
            "From the whole request to its answer",
            buckets=LATENCY_BUCKETS,
            **prefix,
        )
        for outcome in OUTCOMES:
            self.reviews.labels(outcome)

    def count_review(self, response: Response) -> None:
        """One draft that was reviewed."""
        self.reviews.labels(response.reviewed.outcome).inc()
        self.scored.labels(response.reviewed.scored_by or "nothing").inc()
        self.refusals.inc(response.refused)

    def text(self) -> bytes:
        """All of it, for /metrics."""
        return generate_latest(self.registry)
