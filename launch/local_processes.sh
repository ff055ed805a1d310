#!/usr/bin/env bash
# One run in several processes on this machine's CPU, as several hosts would run it.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: launch/local_processes.sh [flags] N -- COMMAND [its flags]

Start N processes of `python3 -m emergent_alignment COMMAND …` on this machine's CPU and join them.
Process I prints its lines with [I] before them. SIGTERM and SIGINT go to all of them. When one
fails, the others get a grace time to end by themselves, then SIGTERM, then SIGKILL.

flags:
  --devices D     devices that each process shows to JAX (default 1)
  --port P        where process 0 listens for the others (default: a free one)
  --grace S       seconds between those three (default 30)
  --dry-run       print the commands, one a process, and start nothing

PYTHON names another interpreter than python3.

The exit code is that of the processes that ended by themselves: 0 when all are done; otherwise the
first of these that occurred: 2 (a user's mistake), any other failure, 128 and more (ended by a
signal), 69 (something did not answer), 75 (asked to stop, saved), 76 (another process died).

examples:
  launch/local_processes.sh 2 -- train --config configs/smollm2_135m.py --workdir runs/two
  launch/local_processes.sh --devices 4 2 -- train --workdir runs/eight --config.mesh.fsdp=8
  PYTHON=.venv/bin/python launch/local_processes.sh 4 -- train --workdir runs/four
END
}

SETTING=([devices]=1 [port]='' [grace]=30)
PROCESSES=() # of the run; their number is their place
PREFIXERS=()
CODES=() # of the processes that ended by themselves

free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 12000)) # below what Linux takes for outgoing connections
    if ! (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# start NUMBER COMMAND…: in a process group of its own, so that Ctrl-C reaches it once, through us,
# and so that bash does not have it ignore SIGINT.
start() {
  local number=$1 stream
  shift
  if $DRY_RUN; then
    outer "$@"
    return
  fi
  for stream in out err; do mkfifo "$PIPES/$number.$stream"; done
  set -m
  prefix "[$number] " <"$PIPES/$number.out" &
  PREFIXERS+=($!)
  prefix "[$number] " <"$PIPES/$number.err" >&2 &
  PREFIXERS+=($!)
  "$@" </dev/null >"$PIPES/$number.out" 2>"$PIPES/$number.err" &
  PROCESSES+=($!)
  set +m
}

# signal_all NAME: to every process that is still there.
signal_all() {
  local process
  for process in "${PROCESSES[@]}"; do kill -s "$1" "$process" 2>/dev/null || true; done
}

# reap: take out the processes that have ended, and note their codes.
reap() {
  local number code
  for number in "${!PROCESSES[@]}"; do
    if kill -0 "${PROCESSES[number]}" 2>/dev/null; then continue; fi
    code=0
    wait "${PROCESSES[number]}" 2>/dev/null || code=$?
    # What it started holds our pipes, and would keep us waiting.
    kill -s KILL -- "-${PROCESSES[number]}" 2>/dev/null || true
    unset "PROCESSES[number]"
    if ((code != 0)); then say "process $number ended with exit code $code"; fi
    if [[ $ENDING == no ]]; then CODES+=("$code"); fi
  done
}

# attend: until all have ended. ENDING says which signal was sent because one of them had failed.
attend() {
  local since=''
  ENDING=no
  while ((${#PROCESSES[@]})); do
    sleep 0.1
    reap
    if [[ -z $since && $(worst "${CODES[@]}") != 0 ]]; then since=$SECONDS; fi
    if [[ -z $since ]] || ((SECONDS - since < SETTING[grace])); then continue; fi
    case $ENDING in
      no) ENDING=TERM since=$SECONDS ;;
      TERM) ENDING=KILL ;;
    esac
    signal_all "$ENDING"
  done
}

main() {
  local count number command
  parse_flags "$@"
  set -- "${REST[@]}"
  require_count devices grace
  [[ ${1-} =~ ^[1-9][0-9]*$ ]] || die "say how many processes, e.g. 2 -- train --workdir runs/two"
  [[ ${2-} == -- && $# -gt 2 ]] || die "the command is missing, e.g. $1 -- train --workdir runs/two"
  count=$1
  shift 2
  command=(
    env JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=${SETTING[devices]}"
    "${PYTHON:-python3}" -m emergent_alignment "$@"
    --coordinator "127.0.0.1:${SETTING[port]:-$(free_port)}" --num-processes "$count"
  )
  PIPES=$(mktemp -d)
  trap 'rm -rf "$PIPES"' EXIT
  trap 'signal_all TERM' TERM
  trap 'signal_all INT' INT
  for ((number = 0; number < count; number++)); do
    start "$number" "${command[@]}" --process-id "$number"
  done
  attend
  wait "${PREFIXERS[@]}" || true
  exit "$(worst "${CODES[@]}")"
}

main "$@"
