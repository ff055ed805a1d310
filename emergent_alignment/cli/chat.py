"""Talk with a model and its conscience in the terminal.

The draft is shown as it is written, then the verdict, then the revision where there is one; what
is said in the end is what the conversation goes on with. Every review is kept in the journal.

At the prompt: /new starts another conversation, /quit (or Ctrl-D) leaves. Ctrl-C stops a draft.

examples:
  emergent-alignment chat
  emergent-alignment chat --run runs/first --system "Answer in one sentence."
  emergent-alignment chat --endpoint http://127.0.0.1:8000/v1 --config.endpoint.model=my-model
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from emergent_alignment.cli.answering import add_answering_arguments, apply_answering
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare who talks, how, and where the journal is."""
    add_answering_arguments(parser)
    parser.add_argument("--system", default="", help="a system message")
    parser.add_argument("--journal", type=Path, default=Path("runs/chat/journal"), metavar="DIR")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Talk until the user leaves."""
    config = read_config(rest)
    config = apply_answering(arguments, config, rest)
    from emergent_alignment.applications.zero_shot.answerer import zero_shot
    from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
    from emergent_alignment.parallel.mesh import in_force

    talker = zero_shot(config, run=arguments.workdir, max_new_tokens=arguments.max_new_tokens)
    journal = ConversationJournal(arguments.journal)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{talker.name}; /new starts another conversation, /quit leaves", style="dim")
    opening = [{"role": "system", "content": arguments.system}] if arguments.system else []
    talk, turn = list(opening), arguments.seed
    with in_force(talker.mesh):
        for said in _lines(console):
            if said == "/new":
                talk = list(opening)
                console.print("a new conversation", style="dim")
                continue
            if said.startswith("/"):
                console.print("there are /new and /quit", style="dim")
                continue
            asked = [*talk, {"role": "user", "content": said}]
            answer = _turn(console, talker, journal, asked, arguments, turn)
            talk = [*asked, {"role": "assistant", "content": answer}] if answer else talk
            turn += 1
    journal.close()
    console.print(f"journal: {journal.path}", style="dim", markup=False)


def _lines(console: Console) -> Iterator[str]:
    """What the user says, line by line, until they leave."""
    if sys.stdin.isatty():
        import readline  # noqa: F401 (line editing and history for `input`)
    while True:
        try:
            said = input("you       " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said == "/quit":
            return
        if said:
            yield said


def _turn(console: Console, talker, journal, asked, arguments: Namespace, seed: int) -> str | None:
    """Answer one turn, show each step, keep the record; what is said, None where nothing is."""
    from emergent_alignment.conscience.drafting import DraftSettings

    def tell(text: str) -> None:
        console.print(printable(text), end="", style="dim", markup=False)
        console.file.flush()

    try:
        talker.check_length(asked)
        _label(console, "draft")
        drafting = DraftSettings(arguments.max_new_tokens, arguments.temperature)
        draft = talker.conscience.drafter.streamed(asked, drafting, seed, tell)
        console.print()
        with console.status("reviewing"):
            response = talker.conscience.answered([asked], [draft], seed, [0])[0]
    except UserError as error:
        console.print(f"\n{error}", style="red", markup=False)
        return None
    except KeyboardInterrupt:
        console.print("\nstopped: this draft was not reviewed, and is not part of the talk")
        return None
    journal.write([response])
    _show(console, response)
    return response.final


def _show(console: Console, response) -> None:
    """Verdict and revision, below the draft."""
    reviewed = response.reviewed
    _label(console, "verdict")
    score = "no score" if reviewed.failure else f"score {reviewed.score:+.2f}"
    unit = " nats" if reviewed.scored_by in ("logits", "logprobs") else ""
    approved = reviewed.outcome == "approved"
    text = f"{'approved' if approved else 'flagged'} ({score}{unit})"
    if reviewed.failure:
        text = f"none: the reviewer failed ({reviewed.failure})"
    console.print(printable(text), style="green" if approved else "yellow", markup=False)
    if reviewed.critique:
        _label(console, "critique")
        console.print(printable(reviewed.critique), style="dim", markup=False)
    for attempt in reviewed.attempts:
        if attempt.reason:
            _label(console, attempt.link)
            console.print(f"not taken: {attempt.reason.replace('_', ' ')}", style="dim")
    if reviewed.chosen is not None and not response.refused:
        _label(console, "revision")
        link = reviewed.attempts[-1].link
        console.print(f"{link}, score {reviewed.chosen_score:+.2f}{unit}", style="dim")
    _label(console, "refusal" if response.refused else "answer")
    console.print(printable(response.final), style="bold", markup=False)


def _label(console: Console, word: str) -> None:
    console.print(f"{word:10}", end="", style="cyan")


def printable(text: str) -> str:
    """The text without characters that would steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
