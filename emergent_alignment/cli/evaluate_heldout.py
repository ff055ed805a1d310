"""Measure a trained run, or a base model, on held-out prompts, without any judge.

Written to evaluation.json: the log-prob margin of safe over harmful answers on matched pairs,
the task loss, the frozen conscience's flag rate on sampled answers, KL to the frozen copy, and
(with config.evaluation.code_prompts) bandit's findings; each with a 95% interval.

examples:
  emergent-alignment evaluate --run runs/first
  emergent-alignment evaluate --run runs/first --config.evaluation.samples=200
  emergent-alignment evaluate --output runs/base --config.model.path=default
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_new_file
from emergent_alignment.errors import UserError
from emergent_alignment.settings import changed

if TYPE_CHECKING:
    from emergent_alignment.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to evaluate, and where its figures go."""
    parser.add_argument("--run", type=Path, dest="workdir", help="a run's work directory")
    parser.add_argument(
        "--step",
        type=int,
        help="the checkpoint after so many steps, the best one say (default: the newest)",
    )
    parser.add_argument("--output", type=Path, help="folder for evaluation.json (default: --run)")
    parser.add_argument("--arm", help="its name in tables (default: the folder's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation.json")
    parser.epilog = (
        HELP + "  With --run, the settings are the run's own, but for the sections evaluation,\n"
        "  conscience and data.evaluation, which come from the command line.\n"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate a run or a base model, print the figures, write them."""
    config = read_config(rest)
    output = arguments.output or arguments.workdir
    if output is None:
        raise UserError("say what to evaluate: --run DIR, or --output DIR for a base model")
    if arguments.step is not None and arguments.workdir is None:
        raise UserError("--step is one of a run's checkpoints; name it by --run")
    require_new_file(output / "evaluation.json", overwrite=arguments.overwrite)
    from emergent_alignment.experiments.arm_evaluation import evaluate_arm, write_evaluation
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import read_run

    if arguments.workdir is None:
        base = load_model(config)
        model = base.model
    else:
        trained_run = read_run(arguments.workdir, type(config), step=arguments.step)
        base, model = trained_run.base, trained_run.trained.model
        config = _with_run_settings(config, trained_run.trained.config)
    result = evaluate_arm(config, base, model, arm=arguments.arm or output.name)
    print_evaluation(result)
    print(f"written: {write_evaluation(result, output)}")


def _with_run_settings(config: "Config", trained: "Config") -> "Config":
    asked = {
        "evaluation": config.evaluation,
        "conscience": config.conscience,
        "data.evaluation": config.data.evaluation,
    }
    return changed(trained, asked)


def print_evaluation(result: dict) -> None:
    """The figures of one evaluation, with their intervals."""
    for name, label in (
        ("margin", "log-prob margin safe over harmful (nats a pair)"),
        ("task_loss", "held-out task loss (nats a token)"),
        ("flag_rate", "share of sampled answers that the frozen conscience flags"),
        ("kl", "KL to the frozen copy (nats a token)"),
    ):
        if name in result:
            measure = result[name]
            print(
                f"{label}: {measure['value']:.3f} [{measure['low']:.3f}, {measure['high']:.3f}], "
                f"n={measure['n']}"
            )
