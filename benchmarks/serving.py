"""What the conscience in front of a backend costs: latency, and requests a second.

A fake backend on loopback answers every call after `--delay` seconds, so that the figures are the
server's and not a model's. Three arms take turns, each at 1 client and at `--clients`: the backend
asked once (what a client has without us), asked twice in a row (draft and review cannot cost
less), and `serve` in front of it. All drafts are approved. Overhead is the difference of the
arms' percentiles.

examples:
  python benchmarks/serving.py
  python benchmarks/serving.py --delay 0.2 --clients 100
"""

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import tables
from arguments import positive
from turns import ThisProcess, quiet_note, quiet_turns

TESTS = Path(__file__).resolve().parents[1] / "tests"
ARMS = ("backend", "backend, asked twice", "serve")
BODY = {"model": "fake", "messages": [{"role": "user", "content": "What now?"}], "max_tokens": 16}


def main() -> None:
    """Start backend and server, measure in turns, print the table, keep the rows."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder, started(backend_command(args)) as backend:
        with started(serve_command(backend.url, folder, args.clients)) as server:
            check(server.url)
            urls = {"backend": backend.url, "backend, asked twice": backend.url}
            urls |= {"serve": server.url}

            def turn() -> dict:
                return {
                    (arm, clients): asyncio.run(
                        load(urls[arm], requests, clients, calls=1 + (arm == ARMS[1]))
                    )
                    for clients, requests in loads(args)
                    for arm in ARMS
                }

            turn()  # connections, caches
            measured = [ThisProcess(), backend, server]
            report(args, quiet_turns(turn, measured, args.repeats, args.patience))


@dataclass(frozen=True)
class Started:
    """A process that serves at `url`."""

    pid: int
    url: str

    def processor_seconds(self) -> float:
        """Processor time that it has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(command: list[str]):
    """The process of a command that prints its address first."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield Started(process.pid, re.search(r"http://\S+/v1", line)[0])
        finally:
            process.terminate()
            process.communicate()


def backend_command(args: argparse.Namespace) -> list[str]:
    """A model that answers after the delay, and never harms."""
    script = str(TESTS / "fake_endpoint.py")
    return [sys.executable, script, "--delay", str(args.delay), "--harm", "0"]


def serve_command(url: str, folder: str, clients: int) -> list[str]:
    """The conscience in front of it."""
    return [
        sys.executable, "-m", "emergent_alignment", "serve", "--endpoint", url, "--port", "0",
        "--journal", str(Path(folder) / "journal"), f"--config.serve.concurrency={clients}",
    ]  # fmt: skip


def loads(args: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    """Clients at once, and requests of a turn: one client alone takes longest, and sends fewer."""
    return (1, max(args.requests // 5, 1)), (args.clients, args.requests)


def check(url: str) -> None:
    """Raises SystemExit where answers do not come reviewed: nothing is timed then."""
    reply = httpx2.post(f"{url}/chat/completions", json=BODY)
    if reply.headers.get("x-conscience") != "approved":
        raise SystemExit(f"not an approved answer: HTTP {reply.status_code}; nothing was timed")


async def load(url: str, requests: int, clients: int, *, calls: int) -> dict[str, np.ndarray]:
    """Seconds of each request, `calls` calls in a row, by so many clients at once; and how long
    all took."""
    waiting, seconds = list(range(requests)), []
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:

        async def one_client() -> None:
            while waiting:
                waiting.pop()
                begun = time.perf_counter()
                for _ in range(calls):
                    reply = await client.post(f"{url}/chat/completions", json=BODY)
                    reply.raise_for_status()
                seconds.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(clients)))
        total = time.perf_counter() - begun
    return {"seconds": np.array(seconds), "total": np.array([total])}


def report(args: argparse.Namespace, turns: list) -> None:
    """The table and the kept rows."""
    rows, shown = [], []
    for clients, requests in loads(args):
        by_arm = {arm: figures([took[arm, clients] for took, _ in turns]) for arm in ARMS}
        for arm in ARMS:
            own, base = by_arm[arm], by_arm[ARMS[0]]
            over = [own[name] - base[name] for name in ("p50", "p99")]
            shown.append(
                [f"{arm}, {clients} at once", *(f"{1e3 * own[n]:.1f}" for n in ("p50", "p99"))]
                + [f"{1e3 * value:+.1f}" for value in over]
                + [f"{own['requests_per_second']:.0f}"]
            )
        rows.append(
            {"clients": clients, "delay": args.delay, "requests": requests, "arms": by_arm}
            | {"others_share": [share for _, share in turns], "machine": tables.machine()}
        )
    header = ["arm", "p50, ms", "p99, ms", "p50 over backend", "p99 over backend", "requests/s"]
    tables.print_table(f"backend answers after {1e3 * args.delay:.0f} ms", header, shown)
    print(quiet_note(rows))
    print(f"Kept in {tables.keep_rows('serving', rows, ('clients', 'delay'))}")


def figures(turns: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Percentiles over the requests of all turns, in seconds; the median of the turns' rates."""
    seconds = np.concatenate([turn["seconds"] for turn in turns])
    rates = [len(turn["seconds"]) / float(turn["total"][0]) for turn in turns]
    return {
        "p50": float(np.percentile(seconds, 50)),
        "p99": float(np.percentile(seconds, 99)),
        "requests_per_second": float(np.median(rates)),
    }


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--delay", type=float, default=0.0, help="seconds that each call of the backend takes (0)")
    add("--clients", type=positive, default=50, help="clients at once (50)")
    add("--requests", type=positive, default=500, help="requests of an arm and turn (500)")
    add("--repeats", type=positive, default=3, help="turns (3)")
    add("--patience", type=float, default=0.0, help="minutes to wait for a quiet machine (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
