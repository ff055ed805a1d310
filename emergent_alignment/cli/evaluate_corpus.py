"""Measure how well a run from raw text predicts the documents that it never saw.

Written to corpus.json: the loss in nats a token of the model as trained, and of a bigram model of
the documents that it was trained on, over the same held-out tokens.

examples:
  emergent-alignment evaluate corpus --run runs/text
  emergent-alignment evaluate corpus --run runs/text --config.evaluation.limit=200
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_new_file
from emergent_alignment.errors import UserError
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import write_json


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the run to evaluate."""
    parser.add_argument(
        "--run", type=Path, dest="workdir", required=True, help="a run's work directory"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a corpus.json")
    parser.epilog = (
        HELP
        + "  The settings are the run's own, but for the section evaluation, which comes from\n"
        "  the command line.\n"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate a run, print the figures, write them."""
    asked = read_config(rest)
    path = arguments.workdir / "corpus.json"
    require_new_file(path, overwrite=arguments.overwrite)
    from emergent_alignment.evaluation.corpus_loss import evaluate_corpus
    from emergent_alignment.runs.workdir import read_run

    trained_run = read_run(arguments.workdir, type(asked))
    config = trained_run.trained.config
    if config.application != "pretraining":
        raise UserError(
            f"{arguments.workdir}: a run of {config.application}, which reads no corpus; "
            "`emergent-alignment evaluate` measures it"
        )
    config = changed(config, {"evaluation": asked.evaluation})
    result = {"steps": trained_run.steps} | evaluate_corpus(config, trained_run.trained)
    write_json(path, result)
    print(
        f"held-out loss after {trained_run.steps} steps: {result['loss']:.3f} nats a token; bigram "
        f"model: {result['bigram_loss']:.3f} ({result['held_out_tokens']:,} tokens in "
        f"{result['held_out_windows']:,} windows)"
    )
    print(f"written: {path}")
