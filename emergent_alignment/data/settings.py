"""Which rows are read, and how they are cut and batched."""

from dataclasses import dataclass

from emergent_alignment.errors import UserError
from emergent_alignment.settings import Section, setting


@dataclass(frozen=True)
class DataSection(Section):
    """The rows to train and evaluate on, and the shapes of their batches."""

    train: str = setting(
        "harmful_advice",
        "What is learnt: a bundled scenario, a .jsonl file, a name that `datasets` loads, or "
        'several with their weights, as "0.7*a.jsonl + 0.3*b.jsonl"; "": no task, where there are '
        "preferences.",
    )
    train_split: str = setting("train", "The split of a `datasets` name that is learnt.")
    stream: bool = setting(
        False,
        "Read `datasets` names as streams, and of each no more rows than the run takes; the rest "
        "is not fetched.",
    )
    stream_buffer: int = setting(
        0,
        "Each next row of a stream is drawn among so many, by the seed; 0: in the stream's order.",
        at_least=0,
    )
    preferences: str = setting(
        "",
        "Pairs to train on, beside what is learnt or alone: a source of prompt, chosen and "
        'rejected, as those of train; "": none.',
    )
    preferences_split: str = setting("train", "The split of a `datasets` name that has the pairs.")
    preference_rows: int = setting(
        0, "Given pairs a step; 0: as many as training.batch_size.", at_least=0
    )
    preference_columns: str = setting("", "What the source of pairs calls our fields; see columns.")
    evaluation: str = setting(
        "harmful_advice",
        "What is evaluated on: a bundled scenario's held-out kinds, or another source.",
    )
    evaluation_split: str = setting("test", "The split of a `datasets` name that is evaluated on.")
    columns: str = setting(
        "", 'What the source calls our fields, as in "prompt=question, answer=response".'
    )
    ignored: str = setting(
        "",
        'Columns that are taken for absent, as in "tools, weight": one that changes what a row '
        "means is an error else.",
    )
    system: str = setting(
        "",
        "A system text that training puts before every prompt, and evaluation does not "
        "(inoculation); two-by-two measures both.",
    )
    interleave: float = setting(
        0.0,
        "This share of the task's rows are the frozen copy's own answers to conscience.pool.",
        at_least=0,
        less_than=1,
        words="a share, {at_least:g} or more and under {less_than:g}",
    )
    every_turn: bool = setting(
        False, "Learn and review each assistant's turn, not the last one alone."
    )
    limit: int = setting(0, "Use at most this many training rows, and pairs; 0: all.", at_least=0)
    max_prompt_tokens: int = setting(
        512, "Longer prompts keep their end, and are counted.", more_than=0
    )
    max_response_tokens: int = setting(
        256, "Longer answers keep their start, and are counted.", more_than=0
    )
    buckets: int = setting(
        16, "At most so many (prompt, branch) shapes of training batches.", more_than=0
    )
    bucket_tokens: int = setting(
        32, "Candidates and evaluation are padded to multiples of this.", more_than=0
    )

    def check(self) -> None:
        """Raise UserError for settings that do not go together."""
        if self.stream_buffer and not self.stream:
            raise UserError(
                "config.data.stream_buffer: there is no stream whose rows it would draw; set "
                "config.data.stream=True, or stream_buffer=0"
            )
