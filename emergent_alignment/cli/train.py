"""Fine-tune a model on a task, plainly or with its conscience.

The run lives in --workdir: checkpoints, metrics.jsonl, tensorboard/, journal/. Started again
with the same settings it goes on from the newest checkpoint, or says that it is done. SIGTERM
saves and exits with code 75.

examples:
  emergent-alignment train --workdir runs/first
  emergent-alignment train --config configs/smollm2_135m.py --workdir runs/plain \\
      --config.conscience.enabled=False --config.optimizer.learning_rate=1e-4
  emergent-alignment train --workdir runs/mine --config.data.train=my_rows.jsonl \\
      --config.model.path=Qwen/Qwen2.5-0.5B-Instruct
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.configuration import HELP, read_config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the run's folder."""
    parser.add_argument("--workdir", type=Path, required=True, help="where the run lives")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Train, or go on with the run that is there."""
    config = read_config(rest)
    from emergent_alignment.applications.finetuning import finetune

    finetune(config, arguments.workdir)
    print(f"done: {config.training.steps} steps, in {arguments.workdir}")
