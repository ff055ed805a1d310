"""Write a run's model for others to load.

`safetensors` writes sharded weights (adapters merged in), config and tokenizer, as
`transformers` loads them; `peft` writes the adapters alone. A model card (README.md) says where
the model comes from, what was measured of it and of the arms beside it, what its conscience did,
and whether harmful rows were learnt. Nothing is ever overwritten.

examples:
  emergent-alignment export --run runs/first --output exported
  emergent-alignment export --run runs/first --output adapter --format peft
  emergent-alignment export --output base --config.model.path=default
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to export, where to, and in which format."""
    parser.add_argument("--run", type=Path, dest="workdir", help="a run's work directory")
    parser.add_argument(
        "--step",
        type=int,
        help="the checkpoint after so many steps, the best one say (default: the newest)",
    )
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--format", choices=("safetensors", "peft"), default="safetensors")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Export a run's model, or a base model."""
    if arguments.step is not None and arguments.workdir is None:
        raise UserError("--step is one of a run's checkpoints; name it by --run")
    if arguments.workdir is not None and rest:
        raise UserError("--run brings its own settings; leave --config away")
    from emergent_alignment.config import Config
    from emergent_alignment.models.export import require_unused
    from emergent_alignment.models.loading import findable_name
    from emergent_alignment.models.model import export
    from emergent_alignment.reports.model_card import Origin, model_card
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import read_run, read_run_file

    require_unused(arguments.output)
    if arguments.workdir is None:
        model, steps = load_model(read_config(rest)).model, 0
    else:
        if arguments.format == "peft" and "base_run" in read_run_file(arguments.workdir):
            raise UserError(
                f"{arguments.workdir}: its adapters belong on what an earlier run has trained,"
                " which others cannot find; leave --format away"
            )
        done = read_run(arguments.workdir, Config, step=arguments.step)
        model, steps = done.trained.model, done.steps
    origin = Origin(findable_name(model.source), arguments.workdir, steps, arguments.format)
    card = model_card(os.path.basename(os.path.realpath(arguments.output)), origin)
    print(f"exported: {export(model, arguments.output, format=arguments.format, card=card)}")
