"""Stand-ins for gcloud, xpk, kubectl, srun, …, put on PATH in a temporary folder.

Every one records its words. Files in the folder say what happens:
- `lives`: what the queue answers, a line of states for each time the TPUs are created;
- `NAME.script`: what the program does on the worker (or task) NAME, a word for each start: an exit
  code, `CODE:STEP` (it leaves a checkpoint of that step), `preempted` (the TPUs go away under it),
  or `waits` (until the file `go` is there; SIGTERM ends it with 75);
- `answers`: how the workload ends, a word for each time it is waited for, likewise;
- `fail`: a part of a command that is to fail once.

They are written in bash because a start of Python is most of what such a test would wait for.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LAUNCH = PROJECT / "launch"
PREAMBLE = r"""#!/usr/bin/env bash
set -euo pipefail
shopt -s nullglob
text="${0##*/} $*"
record=$(IFS=$'\x1f' && printf '%s' "${0##*/}$IFS$*")
# One line, so that bash writes it at once: workers record at the same time.
printf '%s\n' "${record//$'\n'/$'\x1e'}" >>"$FAKE_ROOT/calls"
if [[ -f $FAKE_ROOT/fail && $text == *"$(<"$FAKE_ROOT/fail")"* ]]; then
  rm "$FAKE_ROOT/fail"
  echo "ERROR: this one fails" >&2
  exit 1
fi
take() { # the first word of a file, and out of it
  local first rest
  read -r first rest <"$1" || true
  echo "$rest" >"$1"
  echo "$first"
}
act() { # CODE or CODE:STEP: leave the checkpoint, and exit
  if [[ $1 == *:* ]]; then
    mkdir "$FAKE_ROOT/checkpoints/${1#*:}"
    echo '{"commit_timestamp_nsecs": 17}' >"$FAKE_ROOT/checkpoints/${1#*:}/_CHECKPOINT_METADATA"
  fi
  exit "${1%%:*}"
}
"""
GCLOUD = r"""
queue=$FAKE_ROOT/queue
workers=("$FAKE_ROOT"/t-w-?)
case $text in
  *"storage ls"*)
    for step in "$FAKE_ROOT"/checkpoints/*; do echo "${@: -1}" | sed "s/[*]/${step##*/}/"; done
    exit
    ;;
  *"resources create"*)
    sed -n 1p "$FAKE_ROOT/lives" >"$queue"
    sed -i 1d "$FAKE_ROOT/lives"
    exit
    ;;
  *"resources delete"*)
    rm "$queue"
    for worker in "${workers[@]}"; do rm -r "$worker" && mkdir "$worker"; done
    exit
    ;;
esac
if [[ ! -f $queue ]]; then
  echo "ERROR: (gcloud) NOT_FOUND: Resource 'projects/p/first' was not found" >&2
  exit 1
fi
read -r state later <"$queue"
if [[ $text == *describe* ]]; then
  [[ -z $later ]] || echo "$later" >"$queue"
  echo "WARNING: something to look over" >&2
  echo "$state"
elif [[ $state != ACTIVE ]]; then
  echo "ERROR: (gcloud) the TPU is in state PREEMPTED" >&2
  exit 1
elif [[ $text == *"tpu-vm scp"* ]]; then
  for worker in "${workers[@]}"; do cp "$5" "$worker/${6#*:}"; done
else
  code=0
  for word; do [[ $word != --command=* ]] || command=${word#--command=}; done
  for worker in "${workers[@]}"; do
    (cd "$worker" && HOME=$worker HOSTNAME=${worker##*/} exec bash -c "$command") &
  done
  for process in $(jobs -p); do wait "$process" || code=$((code ? code : $?)); done
  exit "$code"
fi
"""
PYTHON3 = r"""
if [[ $text == *"uv venv"* ]]; then
  mkdir -p "${@: -1}/bin"
  ln -s "$FAKE_ROOT/bin/program" "${@: -1}/bin/python"
elif [[ $text == *emergent_alignment* ]]; then
  exec "$FAKE_ROOT/bin/program" "$@"
fi
"""
PROGRAM = r"""
worker=${SLURM_PROCID:-${HOME##*/}}
what=$(take "$FAKE_ROOT/$worker.script")
echo "training on $worker with devices ${JAX_LOCAL_DEVICE_IDS-unset}"
if [[ $what == preempted ]]; then
  echo SUSPENDING SUSPENDED >"$FAKE_ROOT/queue"
  exit 143
elif [[ $what == waits ]]; then
  trap 'exit 75' TERM
  touch "$FAKE_ROOT/$worker.waits"
  for ((turn = 0; turn < 600; turn++)); do
    [[ ! -f $FAKE_ROOT/go ]] || exit 0
    sleep 0.05
  done
  exit 1
fi
act "$what"
"""
XPK = r"""
if [[ $text == *"workload list"* ]]; then act "$(take "$FAKE_ROOT/answers")"; fi
"""
KUBECTL = r"""
if [[ $text == *"get pods"* ]]; then cat "$FAKE_ROOT/pods"; fi
"""
SRUN = r"""
while [[ $1 != bash ]]; do shift; done
tasks=() highest=0
for ((number = 0; number < SLURM_NTASKS; number++)); do
  SLURM_PROCID=$number setsid "$@" &
  tasks+=($!)
done
echo "${tasks[@]}" >"$FAKE_ROOT/tasks"
for task in "${tasks[@]}"; do
  code=0
  wait "$task" || code=$?
  if ((code > highest)); then highest=$code; fi
done
exit "$highest"
"""
SCANCEL = r"""
for group in $(<"$FAKE_ROOT/tasks"); do kill -s TERM -- "-$group"; done
"""
COMMANDS = {
    "gcloud": GCLOUD, "python3": PYTHON3, "program": PROGRAM, "xpk": XPK, "kubectl": KUBECTL,
    "srun": SRUN, "scancel": SCANCEL, "scontrol": "", "sbatch": "",
    "gcsfuse": "",
}  # fmt: skip


class Fakes:
    """A folder of fakes, and a way to start launch scripts that find them first."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("bin", "checkpoints", "temporary", "here"):
            (root / name).mkdir()
        for name, body in COMMANDS.items():
            (root / "bin" / name).write_text(PREAMBLE + body)
            (root / "bin" / name).chmod(0o755)
        outside = {name: os.environ[name] for name in os.environ if "SLURM" not in name}
        for name in ("PYTHON", "XLA_FLAGS"):
            outside.pop(name, None)
        self.environment = outside | {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "FAKE_ROOT": str(root),
            "TMPDIR": str(root / "temporary"),
        }

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def start(self, script: str, *words: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(LAUNCH / script), *words],
            env=self.environment | environment,
            cwd=self.root / "here",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(script, *words, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def calls(self, *parts: str) -> list[list[str]]:
        """The recorded commands; with parts, those that contain one of them."""
        path = self.root / "calls"
        records = path.read_text().split("\n")[:-1] if path.exists() else []
        calls = [record.replace("\x1e", "\n").split("\x1f") for record in records]
        return [
            call for call in calls if not parts or any(part in " ".join(call) for part in parts)
        ]

    def wait_for(self, name: str) -> None:
        """Until the file is there."""
        deadline = time.monotonic() + 20
        while not (self.root / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come"
            time.sleep(0.02)


def commands(lines: Iterable[str]) -> list[list[str]]:
    """The commands of a dry run, up to the first comment, as words."""
    found = []
    for line in lines:
        if line.startswith("#"):
            break
        found.append(shlex.split(line))
    return found
