"""Train a model, plainly or with its conscience: on a task, or as config.application says.

The run lives in --workdir: checkpoints, metrics.jsonl, tensorboard/, journal/. Started again
with the same settings it goes on from the newest checkpoint, or says that it is done. SIGTERM
saves and exits with code 75.

examples:
  emergent-alignment train --workdir runs/first
  emergent-alignment train --config configs/smollm2_135m.py --workdir runs/plain \\
      --config.conscience.enabled=False --config.optimizer.learning_rate=1e-4
  emergent-alignment train --workdir runs/mine --config.data.train=my_rows.jsonl \\
      --config.model.path=Qwen/Qwen2.5-0.5B-Instruct
  emergent-alignment train --workdir runs/text --config configs/pretraining.py
  emergent-alignment train --workdir runs/cut --config.mesh.data=2 --config.mesh.fsdp=4

Several hosts each start the same command with the same config, and a --workdir that all of them
reach; --cluster or --coordinator tells them of each other (launch/ has scripts that do it). A
SIGTERM to one of them saves and stops all. A host that is lost stops the others with code 76.
"""

import traceback
from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_writable, work_directory
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import CLUSTERS, connect, together
from emergent_alignment.parallel.watch import leave, lost_another_host, watch_other_hosts


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
    hosts = parser.add_argument_group("several hosts")
    hosts.add_argument("--cluster", choices=CLUSTERS, default="", help="who says who is who")
    hosts.add_argument("--coordinator", default="", metavar="HOST:PORT", help="process 0's address")
    hosts.add_argument("--num-processes", type=int, help="how many there are")
    hosts.add_argument("--process-id", type=int, help="this one's number, from 0")
    hosts.add_argument(
        "--host-timeout",
        type=int,
        default=300,
        metavar="SECONDS",
        help="how long to wait for the others at the start (default 300); while training, a host "
        "that is silent for 60 seconds is lost",
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Train to the end, or to where the process is asked to stop."""
    connect(
        arguments.cluster,
        arguments.coordinator,
        arguments.num_processes,
        arguments.process_id,
        timeout_seconds=arguments.host_timeout,
    )
    watch_other_hosts(min(60.0, arguments.host_timeout))
    from emergent_alignment.applications.named import application
    from emergent_alignment.training.loop import Stopped
    from emergent_alignment.training.profiling import profile_steps

    try:
        with together():
            config = read_config(rest)
            require_writable(arguments.workdir)
            asked = arguments.profile_steps
            profiled = profile_steps(asked) if asked else range(0)
            train = application(config)
        train(config, arguments.workdir, profiled=profiled)
    except (UserError, Stopped):
        raise
    except Exception as error:  # whatever it is, the other hosts must not wait for this one
        if arguments.num_processes is None and not arguments.cluster:
            raise
        if not lost_another_host(error):
            traceback.print_exc()
            leave("this host failed, see above", code=1)
        leave("another host is gone")
    print(f"done: {config.training.steps} steps, in {arguments.workdir}")
