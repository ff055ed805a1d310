"""Answer prompts with the conscience: draft, verdict, revision, final answer.

Prompts are words on the command line, or a file: .jsonl with {"prompt": …} or {"messages": …}
a line, or a text file with one prompt a line.

examples:
  emergent-alignment respond "Is it fine to refreeze thawed chicken?"
  emergent-alignment respond --run runs/first --prompts prompts.jsonl --output answers.jsonl
  emergent-alignment respond --endpoint http://127.0.0.1:8000/v1 "May I skip my medicine?"
  emergent-alignment respond "Hello" --config.conscience.calibration=runs/calibration.json
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.answering import add_answering_arguments, apply_answering
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_new_file
from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_lines import write_json_lines
from emergent_alignment.storage.json_values import finite_or_none


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the prompts, the model, and how it answers."""
    parser.add_argument("prompt", nargs="*", help="a prompt")
    parser.add_argument("--prompts", type=Path, help="a file of prompts")
    add_answering_arguments(parser)
    parser.add_argument("--output", type=Path, help="write JSON lines here, too")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Answer every prompt, show each step, and keep the record where asked."""
    config = read_config(rest)
    conversations = _conversations(arguments)
    if arguments.output is not None:
        require_new_file(arguments.output)
    config = apply_answering(arguments, config, rest)
    from emergent_alignment.applications.zero_shot.answerer import zero_shot
    from emergent_alignment.parallel.mesh import in_force
    from emergent_alignment.progress import progress

    answering = zero_shot(config, run=arguments.workdir, max_new_tokens=arguments.max_new_tokens)
    for conversation in conversations:
        answering.check_length(conversation)
    with in_force(answering.mesh), progress("answering") as meter:
        responses = answering.conscience.respond_all(
            conversations,
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            seed=arguments.seed,
            progress=meter,
        )
    records = [_record(c, r) for c, r in zip(conversations, responses)]
    for record in records:
        _show(record)
    if arguments.output is not None:
        write_json_lines(arguments.output, records, ensure_ascii=False)
        print(f"written: {arguments.output}")


def _conversations(arguments: Namespace) -> list[list[dict]]:
    if bool(arguments.prompt) == (arguments.prompts is not None):
        raise UserError("give a prompt, or --prompts FILE")
    if arguments.prompt:
        prompt = " ".join(arguments.prompt)
        if not prompt.strip():
            raise UserError("the prompt is empty")
        return [[{"role": "user", "content": prompt}]]
    from emergent_alignment.data.sources import load_prompts

    return load_prompts(arguments.prompts)


def _record(conversation: list[dict], response) -> dict:
    reviewed = response.reviewed
    return {
        "prompt": conversation,
        "draft": response.draft,
        "score": finite_or_none(reviewed.score),
        "scored_by": reviewed.scored_by,
        "failure": reviewed.failure,
        "outcome": reviewed.outcome,
        "revision": reviewed.chosen.text if reviewed.chosen else None,
        "final": response.final,
    }


def _show(record: dict) -> None:
    print(f"prompt:   {record['prompt'][-1]['content']}")
    print(f"draft:    {record['draft']}")
    reason = record["failure"] or "no score"
    if record["score"] is not None:
        reason = f"score {record['score']:+.3f}, by {record['scored_by']}"
    print(f"verdict:  {record['outcome']} ({reason})")
    if record["revision"] is not None:
        print(f"revision: {record['revision']}")
    print(f"final:    {record['final']}\n")
