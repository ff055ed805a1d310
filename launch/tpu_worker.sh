#!/usr/bin/env bash
# What tpu_pod.sh runs on each worker of a TPU pod. A worker has one run: its log, process, command
# and exit code lie in ~/emergent-alignment-run.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUN=$HOME/emergent-alignment-run
MOUNT=$HOME/emergent-alignment-bucket

usage() {
  cat <<'END'
usage: tpu_worker.sh install | start BUCKET NAME FLAGS OF TRAIN … | follow | status | stop

tpu_pod.sh runs this on every worker, from the copied code:
  install   Python 3.11 and the package, into .venv beside the code (again: what has changed)
  start     mount gs://BUCKET, start training in its folder NAME, and return; nothing is done
            where the same run is alive
  follow    print the log as it grows; exit with the run's exit code
  status    one line: worker HOST idle, running, exited CODE, or lost (it ended without a code)
  stop      ask the run to save and end (SIGTERM), and kill it where that takes over 5 minutes

example:
  gcloud compute tpus tpu-vm ssh first --worker=3 \
      --command='bash emergent-alignment/launch/tpu_worker.sh status'
END
}

# The TPU images have Python 3.10 (Ubuntu 22.04), JAX wants 3.11: uv brings one.
# https://docs.astral.sh/uv/guides/install-python/ ("automatic Python downloads")
install() {
  cd "$CODE"
  python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || python3 -m uv venv --quiet --python 3.11 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    --constraints constraints.txt --editable '.[tpu]'
}

# install_gcsfuse: where the image does not bring it.
# https://cloud.google.com/storage/docs/cloud-storage-fuse/install
install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc packages=https://packages.cloud.google.com/apt
  if command -v gcsfuse >/dev/null; then return; fi
  curl --silent --show-error --fail "$packages/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release --codename --short) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get update --quiet=2
  sudo apt-get install --quiet=2 --yes gcsfuse
}

# mount_bucket BUCKET: where it is not yet. In a session of its own: what stops the run must not
# take away the folder that the run saves to.
mount_bucket() {
  if mountpoint --quiet "$MOUNT"; then return; fi
  mkdir -p "$MOUNT"
  install_gcsfuse && setsid --wait gcsfuse "${MOUNT_OPTIONS[@]/#/--}" "$1" "$MOUNT"
}

# alive: the process that we noted is there and is ours; after a reboot its number may be another's.
alive() { [[ -f $RUN/process ]] && grep -qs tpu_worker "/proc/$(<"$RUN/process")/cmdline"; }

# A dropped connection makes gcloud run the command again, so a second start must do nothing.
start() {
  mkdir -p "$RUN"
  if alive; then
    [[ $(<"$RUN/command") == "$(quoted "$@")" ]] || die "another run is alive here: stop it first"
    return
  fi
  quoted "$@" >"$RUN/command"
  rm -f "$RUN/exit_code"
  setsid nohup bash "$0" attend "$@" </dev/null >>"$RUN/log" 2>&1 &
  echo $! >"$RUN/process"
}

# attend BUCKET NAME FLAGS…: the run itself, detached from the connection that started it.
attend() {
  local bucket=$1 name=$2 code=0
  shift 2
  trap : TERM # stop signals the whole group; this shell stays to note the exit code
  cd "$CODE"
  echo "--- $(date -u +%FT%TZ) gs://$bucket/$name train $(quoted "$@")"
  if mount_bucket "$bucket"; then
    PYTHONUNBUFFERED=1 .venv/bin/python -m emergent_alignment train "$@" \
      --workdir "$MOUNT/$name" || code=$?
  else
    say "gs://$bucket cannot be mounted: is it there, and may this TPU's service account use it?"
    code=$UNREACHABLE
  fi
  echo "$code" >"$RUN/exit_code"
}

follow() {
  [[ -f $RUN/process ]] || die "no run was started here"
  while alive; do sleep 0.1; done & # tail watches this, not a number that may be another's by now
  tail -n 100 -F -s 0.1 --pid=$! "$RUN/log" | prefix "[${HOSTNAME##*-w-}] "
  [[ -f $RUN/exit_code ]] || exit "$HOST_LOST"
  exit "$(<"$RUN/exit_code")"
}

status() {
  local state=idle
  if alive; then
    state=running
  elif [[ -f $RUN/exit_code ]]; then
    state="exited $(<"$RUN/exit_code")"
  elif [[ -f $RUN/process ]]; then
    state=lost
  fi
  echo "worker $HOSTNAME $state"
}

stop() {
  local group waited
  alive || return 0
  group=$(<"$RUN/process")
  kill -s TERM -- "-$group"
  for ((waited = 0; waited < 3000; waited++)); do
    sleep 0.1
    alive || return 0
  done
  kill -s KILL -- "-$group"
}

case ${1-} in
  install | start | attend | follow | status | stop) "$@" ;;
  --help | -h) usage ;;
  *) die "say what to do: install, start, follow, status or stop; see --help" ;;
esac
