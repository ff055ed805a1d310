"""Train a model, plainly or with its conscience: on a task, or as config.application says.

The run lives in --workdir: checkpoints, metrics.jsonl, tensorboard/, journal/. Started again
with the same settings it goes on from the newest checkpoint, or says that it is done. SIGTERM
saves and exits with code 75.

examples:
  emergent-alignment train --workdir runs/first
  emergent-alignment train --config smollm2_135m --workdir runs/plain \\
      --config.conscience.enabled=False --config.optimizer.learning_rate=1e-4
  emergent-alignment train --workdir runs/mine --config.data.train=my_rows.jsonl \\
      --config.model.path=Qwen/Qwen2.5-0.5B-Instruct
  emergent-alignment train --workdir runs/text --config pretraining
  emergent-alignment train --workdir runs/cut --config.mesh.data=2 --config.mesh.fsdp=4

Several hosts each start the same command with the same config, and a --workdir that all of them
reach; --cluster or --coordinator tells them of each other (launch/ has scripts that do it). A
SIGTERM to one of them saves and stops all. A host that is lost stops the others with code 76.
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_writable, work_directory
from emergent_alignment.cli.several_hosts import add_host_arguments, joined
from emergent_alignment.parallel.hosts import together


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the work directory, and the hosts of a run."""
    parser.add_argument(
        "--workdir",
        type=work_directory,
        required=True,
        help="where the run lives: a folder that all hosts reach",
    )
    parser.add_argument(
        "--profile-steps",
        "--profile_steps",
        metavar="FIRST:STOP",
        help="trace these steps into --workdir/profile, for TensorBoard or Perfetto (10:12: two)",
    )
    add_host_arguments(parser)
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Train to the end, or to where the process is asked to stop."""
    with joined(arguments):
        from emergent_alignment.applications.by_name import application
        from emergent_alignment.training.metrics import metrics_by_step
        from emergent_alignment.training.profiling import profile_steps

        with together():
            config = read_config(rest)
            require_writable(arguments.workdir)
            asked = arguments.profile_steps
            profiled = profile_steps(asked) if asked else range(0)
            train = application(config)
        train(config, arguments.workdir, profiled=profiled)
    print(f"done: {len(metrics_by_step(arguments.workdir))} steps, in {arguments.workdir}")
