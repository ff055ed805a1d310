"""Several processes on this machine as the hosts of one run; they compile cheaply."""

import os
import socket
import subprocess
import time

from compilation import CHEAPLY


def environment(devices: int) -> dict:
    flag = f"{CHEAPLY} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flag}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(
    commands: list[list[str]], timeout: int = 30, devices: int = 4
) -> list[subprocess.Popen]:
    port = free_port()
    return [
        subprocess.Popen(
            command
            + ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(len(commands))]
            + ["--process-id", str(number), "--host-timeout", str(timeout)],
            env=environment(devices),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, command in enumerate(commands)
    ]


def ends(processes: list[subprocess.Popen], timeout: float = 1200) -> list[tuple[int, str]]:
    """Exit codes and last lines of stderr; nobody is left behind."""
    deadline, found = time.monotonic() + timeout, []
    try:
        for process in processes:
            _, said = process.communicate(timeout=max(deadline - time.monotonic(), 1))
            found.append((process.returncode, said))
    finally:
        for process in processes:
            process.kill()
    return found


def all_done(processes: list[subprocess.Popen]) -> None:
    for code, said in ends(processes):
        assert code == 0, said
