"""SELF-ALIGN (arXiv 2305.03047): from a base model to an aligned one in four stages.

  1  instructions    the model writes instructions: self-instruct, and red-teaming by topic
  2  answers         it answers them under sixteen principles, thinking which apply
  3  engraving       it learns its answers without the principles
  4  reinforcement   preferences, reward and policy optimisation, or verbose cloning

Each stage lives in a folder of --workdir: data.jsonl, and manifest.json once it is done. Run again,
a done stage is not done again and a killed one goes on. docs/self_align.md explains the settings.

examples:
  emergent-alignment self-align --config configs/self_align_quickstart.py --workdir runs/aligned
  emergent-alignment self-align --config configs/self_align_quickstart.py --workdir runs/aligned \\
      --stages 1,2
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_writable, work_directory


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the work directory and the stages."""
    parser.add_argument(
        "--workdir", type=work_directory, required=True, help="where the stages' folders are"
    )
    parser.add_argument(
        "--stages", default="1-4", help="which to run, as 1,2 or 2-4 (default: all)"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Run the stages that are asked for."""
    from emergent_alignment.self_align.pipeline import parse_stages, self_align

    stages = parse_stages(arguments.stages)
    config = read_config(rest)
    require_writable(arguments.workdir)
    self_align(config, arguments.workdir, stages)
    print(f"done: stages {', '.join(map(str, stages))}, in {arguments.workdir}")
