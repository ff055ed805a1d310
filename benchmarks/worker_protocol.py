"""What a benchmarked side speaks: JSON lines with its parent, one step for each order.

Standard library alone, so that every virtual environment can import it.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

Step = Callable[[dict], dict]


def serve(prepare: Callable[[dict], Step]) -> None:
    """Read settings, `prepare` a step, then run it once for each order until the input ends.

    `prepare` takes the settings and returns a function that takes an order, runs one step to
    its very end, and returns what the parent compares, such as {"loss": …}. Whatever libraries
    print goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**content) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        step = prepare(json.loads(sys.stdin.readline()))
        answer(peak_bytes=peak_bytes())
        for line in sys.stdin:
            order = json.loads(line)
            start, processor_start = time.perf_counter(), time.process_time()
            result = step(order)
            answer(
                seconds=time.perf_counter() - start,
                processor_seconds=time.process_time() - processor_start,
                peak_bytes=peak_bytes(),
                result=result,
            )
    except Exception as error:  # whatever a library raises: the parent must hear of it
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}")


def peak_bytes() -> int:
    """The most memory that this process has held at once.

    On Linux from VmHWM: ru_maxrss survives exec, so that a child would start with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
