#!/usr/bin/env bash
# A run on TPU slices of a GKE cluster, through xpk.
#
# Sources: https://github.com/AI-Hypercomputer/xpk/blob/main/docs/usage/workloads.md (create, list
# and its return codes, delete), …/docs/usage/docker.md (--base-docker-image with --script-dir, or
# --docker-image), …/docs/usage/storage.md (attach, --storage), …/src/xpk/parser/workload.py (--restart-on-exit-codes; 127 to 255 always restart).
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: launch/gke_xpk.sh COMMAND [flags] [-- FLAGS OF TRAIN …]

commands:
  attach    once for a cluster and a bucket: make the bucket a storage of the cluster
  up        create the workload, wait until it ends, and create it again while that brings new
            checkpoints
  logs      print what all workers print, [pod] before each line
  delete    delete the workload

flags:
  --project P         the Google Cloud project
  --zone Z            of the cluster, such as us-central1-a
  --cluster C         one that xpk has made
  --name NAME         of the workload and of the run
  --bucket B          the work directory is gs://B/NAME, mounted (attach, up)
  --tpu-type T        such as v5litepod-16 (up)
  --num-slices N      default 1
  --image I           an image with this package and the files that you name. Without it, xpk puts
                      this code on python:3.11 (docker is needed) and each worker installs it first
  --max-restarts N    within the cluster, without this script (default 5)
  --poll S            seconds between two attempts to find a new workload (default 30)
  --env NAME=VALUE    for the run, such as HF_TOKEN=… or XLA_FLAGS=…; NAME alone takes this shell's
                      value; repeated
  --more WORD         a further word for xpk's create, such as --more=--priority=high; repeated
  --dry-run           print the commands and run none

What comes after -- goes to `emergent-alignment train`, which gets --workdir and --cluster tpu
besides. Files below this folder that are named there are copied with the code. The workload's
service account must be able to write to the bucket.

The cluster restarts all workers after exit codes 1 (a failure), 69 (something did not answer), 75
(asked to stop, saved), 76 (another worker died) and 127 or more (ended by a signal). 2 (a mistake)
ends the workload, and this script exits with that code.

examples:
  launch/gke_xpk.sh attach --project my-project --zone us-central1-a --cluster my-cluster \
      --bucket my-bucket
  launch/gke_xpk.sh up --project my-project --zone us-central1-a --cluster my-cluster \
      --bucket my-bucket --name first --tpu-type v5litepod-16 --num-slices 2 \
      -- --config configs/qwen3_4b_code_hacking.py --config.training.batch_size=32
  launch/gke_xpk.sh logs --project my-project --zone us-central1-a --cluster my-cluster --name first
END
}

SETTING=([project]='' [zone]='' [cluster]='' [name]='' [bucket]='' [tpu-type]='' [num-slices]=1
  [image]='' [max-restarts]=5 [poll]=30 [env]='' [more]='')
REPEATED=(env more)

MOUNT_POINT=/bucket # in the containers

xpk_on_cluster() {
  outer xpk "$@" --cluster="${SETTING[cluster]}" --project="${SETTING[project]}" \
    --zone="${SETTING[zone]}"
}

xpk_workload() { xpk_on_cluster workload "$@"; }

# The storage has the bucket's name. The size is asked for and means nothing for a bucket.
attach() {
  local options
  options=$(IFS=, && echo "${MOUNT_OPTIONS[*]}")
  xpk_on_cluster storage attach "$BUCKET" --type=gcsfuse --mount-point="$MOUNT_POINT" \
    --readonly=false --auto-mount=false --size=1 --mount-options="$options"
}

# stage: the code in a folder of its own, since xpk copies all of --script-dir.
stage() {
  local archive=$STAGE.tgz
  pack "$archive"
  outer rm -rf "$STAGE"
  outer mkdir "$STAGE"
  outer tar -xzf "$archive" -C "$STAGE"
}

# The container's shell sends SIGTERM to what it started: exec makes that the program itself.
create() {
  local command image=(--docker-image="${SETTING[image]}")
  command="exec $(quoted python3 -m emergent_alignment train "${REST[@]}" \
    --workdir "$MOUNT_POINT/$NAME" --cluster tpu)"
  if [[ -z ${SETTING[image]} ]]; then
    command="pip install --quiet --constraint constraints.txt '.[tpu]' && $command"
    image=(--base-docker-image=python:3.11 --script-dir="$STAGE")
  fi
  local words=() given=()
  mapfile -t given < <(environment)
  given=("${given[@]/#/--env=}")
  mapfile -t words < <(grep . <<<"${SETTING[more]}")
  xpk_workload create --workload="$NAME" --tpu-type="${SETTING[tpu-type]}" \
    --num-slices="${SETTING[num-slices]}" "${image[@]}" --storage="$BUCKET" --command="$command" \
    --max-restarts="${SETTING[max-restarts]}" \
    --restart-on-exit-codes="1,$UNREACHABLE,$STOPPED,$HOST_LOST" \
    --termination-grace-period-seconds=120 "${given[@]}" "${words[@]}"
}

delete() { xpk_workload delete --workload="$NAME" --force; }

# await: until the workload has ended. 0 done, 125 failed; the queue may not know it at once (1).
await() {
  local attempt code
  for attempt in 1 2 3 4 5; do
    code=0
    xpk_workload list --wait-for-job-completion="$NAME" || code=$?
    if ((code == 0 || code == 125)); then return "$code"; fi
    say "xpk failed with $code (attempt $attempt of 5)"
    pause "${SETTING[poll]}"
  done
  say "the workload, if there is one, goes on without this script"
  exit 1
}

# exit_codes: of the containers of the last attempt, one a line. xpk has pointed kubectl at the cluster.
exit_codes() {
  local each='{range .status.containerStatuses[*]}{.state.terminated.exitCode}{"\n"}{end}'
  outer kubectl get pods --selector="xpk.google.com/workload=$NAME" \
    --output="jsonpath={range .items[*]}$each{end}"
}

up() {
  local code codes
  if [[ -z ${SETTING[image]} ]]; then stage; fi # once: what is edited later is not part of the run
  REACHED=$(newest_checkpoint "$WORKDIR")
  while true; do
    create
    if await; then
      say "done, in $WORKDIR"
      return
    fi
    mapfile -t codes < <(exit_codes | grep -x '[0-9][0-9]*')
    ((${#codes[@]})) || codes=("$HOST_LOST")
    code=$(worst "${codes[@]}")
    # The cluster has made the restarts that bring nothing; new checkpoints are worth another round.
    if ! worth_restarting "$code" || ! may_restart "$(newest_checkpoint "$WORKDIR")" 0; then
      say "the run ended with exit code $code; see launch/gke_xpk.sh logs"
      exit "$code"
    fi
    say "starting again after exit code $code"
    delete
  done
}

# What `up` runs where all goes well, and then what it runs where not.
plan() {
  if [[ -z ${SETTING[image]} ]]; then stage; fi
  newest_checkpoint "$WORKDIR" >/dev/null
  create
  await
  note "failed: with any code but 2 and a new checkpoint, delete and create again"
  exit_codes
  delete
}

logs() {
  xpk_workload list --filter-by-job="$NAME"
  outer kubectl logs --follow --prefix --all-containers --tail=100 --max-log-requests=1000 \
    --selector="xpk.google.com/workload=$NAME"
}

main() {
  local command=${1-}
  case $command in
    attach | up | logs | delete) shift ;;
    --help | -h) usage && exit ;;
    *) die "say what to do: attach, up, logs or delete; see --help" ;;
  esac
  parse_flags "$@"
  require project my-project
  require zone us-central1-a
  require cluster my-cluster
  case $command in attach | up) require bucket my-bucket ;; esac
  if [[ $command == attach ]]; then
    place_bucket
    attach
    exit
  fi
  require name first
  if [[ $command == up ]]; then require tpu-type v5litepod-16; fi
  require_count num-slices max-restarts poll
  environment >/dev/null
  place_run
  STAGE=${TMPDIR:-/tmp}/emergent-alignment-$NAME
  if [[ $command == up ]] && $DRY_RUN; then plan; else "$command"; fi
}

main "$@"
