"""The flags by which the hosts of a command find each other, and what becomes of the others when
one of them fails."""

import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from emergent_alignment.errors import Stopped, UserError
from emergent_alignment.parallel.chips import check_platform
from emergent_alignment.parallel.hosts import CLUSTERS, connect
from emergent_alignment.parallel.watch import (
    leave,
    lost_another_host,
    watch_other_hosts,
    watch_progress,
)


def add_host_arguments(parser: ArgumentParser) -> None:
    """Declare --cluster, or --coordinator and its numbers."""
    hosts = parser.add_argument_group("several hosts")
    hosts.add_argument("--cluster", choices=CLUSTERS, default="", help="who says who is who")
    hosts.add_argument("--coordinator", default="", metavar="HOST:PORT", help="process 0's address")
    hosts.add_argument("--num-processes", type=int, help="how many there are")
    hosts.add_argument("--process-id", type=int, help="this one's number, from 0")
    hosts.add_argument(
        "--host-timeout",
        type=int,
        default=1800,
        metavar="SECONDS",
        help="how long to wait for the others at the start (default 1800); while training, a host "
        "that is silent for 60 seconds is lost",
    )


@contextmanager
def joined(arguments: Namespace) -> Iterator[None]:
    """This host among the others. Where there are several, whatever is raised inside but a
    UserError or a Stopped, which all of them raise, ends this process at once: with the exit code
    of a lost host where another one is gone."""
    connect(
        arguments.cluster,
        arguments.coordinator,
        arguments.num_processes,
        arguments.process_id,
        timeout_seconds=arguments.host_timeout,
    )
    check_platform(arguments.cluster if arguments.cluster == "tpu" else "")
    watch_other_hosts(min(60.0, arguments.host_timeout))
    watch_progress()
    try:
        yield
    except (UserError, Stopped):
        raise
    except Exception as error:  # whatever it is, the other hosts must not wait for this one
        if arguments.num_processes is None and not arguments.cluster:
            raise
        if not lost_another_host(error):
            traceback.print_exc()
            leave("this host failed, see above", code=1)
        leave("another host is gone")
