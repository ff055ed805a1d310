#!/usr/bin/env bash
# A run on a Cloud TPU pod, through queued resources.
#
# Sources: https://cloud.google.com/tpu/docs/queued-resources (states, creating, deleting),
# https://cloud.google.com/tpu/docs/spot (a preempted Spot TPU must be created anew),
# https://cloud.google.com/tpu/docs/runtimes (which --runtime-version),
# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create, …/describe,
# …/delete, and https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh, …/scp.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: launch/tpu_pod.sh COMMAND [flags] [-- FLAGS OF TRAIN …]

commands:
  up        all of it: create, wait, install, start, follow; when the TPUs are taken away, or a
            worker is lost, it creates and starts again, until the run is done
  create    ask for the TPUs (a queued resource named NAME with one node named NAME)
  wait      until they are there
  install   copy the code to all workers and install it
  start     start training on all workers and return
  logs      print what all workers print, [worker] before each line; ends when the run ends
  stop      ask the run to save and end
  delete    give the TPUs back

flags:
  --project P            the Google Cloud project
  --zone Z               such as europe-west4-b
  --name NAME            of the TPUs and of the run
  --bucket B             the work directory is gs://B/NAME, mounted with gcsfuse (up, start)
  --accelerator-type T   such as v5litepod-16 (up, create)
  --runtime-version V    default: the one that Google names for T
  --spot                 cheaper, and can be taken away at any time
  --reserved             of capacity that the project has reserved
  --node-count N         slices of that type in one run (default 1)
  --internal-ips         the TPUs get no addresses outside of the network
  --iap                  reach them through the Identity-Aware Proxy (gcloud alpha)
  --service-account S    that the TPUs have
  --labels L             such as team=safety,cost=42
  --data-disk D          as gcloud's, such as source=projects/p/zones/z/disks/d,mode=read-only
  --more WORD            a further word for gcloud's create, such as --more=--network=mine; repeated
  --env NAME=VALUE       for the run, such as HF_TOKEN=… or XLA_FLAGS=…; NAME alone takes this
                         shell's value; repeated
  --max-restarts N       in a row that bring no new checkpoint (default 5)
  --restart-wait S       seconds before a restart (default 30)
  --poll S               seconds between two looks at the queue (default 30)
  --delete-when-done     `up` gives the TPUs back at its end, however the run ended
  --dry-run              print the commands and run none

What comes after -- goes to `emergent-alignment train`, which gets --workdir and --cluster tpu
besides. Files below this folder that are named there (a config, rows of data) are copied with the
code. The TPUs' service account must be able to write to the bucket. Several workers are reached at
once only with the key in the agent: ssh-add ~/.ssh/google_compute_engine.

`up` restarts after preemption and after every exit code but 0 and 2 (a mistake), as long as that
brings new checkpoints; it waits longer each time that brings none. TPU7x is not for this API: see
launch/gke_xpk.sh.
Ctrl-C ends only this script: the same `up` follows the run again.

examples:
  launch/tpu_pod.sh up --project my-project --zone europe-west4-b --bucket my-bucket --name first \
      --accelerator-type v5litepod-16 --spot \
      -- --config configs/qwen3_4b_code_hacking.py
  launch/tpu_pod.sh logs --project my-project --zone europe-west4-b --name first
  launch/tpu_pod.sh delete --project my-project --zone europe-west4-b --name first
END
}

SETTING=([project]='' [zone]='' [name]='' [bucket]='' [accelerator-type]='' [runtime-version]=''
  [spot]=false [reserved]=false [node-count]=1 [internal-ips]=false [iap]=false [service-account]=''
  [labels]='' [data-disk]='' [more]='' [env]=''
  [max-restarts]=5 [restart-wait]=30 [poll]=30 [delete-when-done]=false)
SWITCHES=(spot reserved internal-ips iap delete-when-done)
REPEATED=(more env)
WORKER=emergent-alignment/launch/tpu_worker.sh # below the home folder of every worker
STATE=                                         # of the queued resource; set by look

tpus() { outer gcloud compute tpus "$@" --project="${SETTING[project]}" --zone="${SETTING[zone]}"; }

# reach ssh|scp WORD…: all workers, those of several slices through the queued resource.
reach() {
  local command=$1 group=tpu-vm more=() version=()
  shift
  if ((SETTING[node-count] > 1)); then group=queued-resources more+=(--node=all); fi
  if ${SETTING[iap]}; then version=(alpha) more+=(--tunnel-through-iap); fi
  outer gcloud "${version[@]}" compute tpus "$group" "$command" "$@" "${more[@]}" \
    --project="${SETTING[project]}" --zone="${SETTING[zone]}"
}

on_workers() { reach ssh "$NAME" --worker=all --command="$*"; }

runtime_version() {
  case ${SETTING[accelerator-type]} in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local name more=() nodes=(--node-id="$NAME") words=()
  if ((SETTING[node-count] > 1)); then
    nodes=(--node-count="${SETTING[node-count]}" --node-prefix="$NAME")
  fi
  for name in spot reserved internal-ips; do
    if ${SETTING[$name]}; then more+=("--$name"); fi
  done
  for name in service-account labels data-disk; do
    if [[ -n ${SETTING[$name]} ]]; then more+=("--$name=${SETTING[$name]}"); fi
  done
  mapfile -t words < <(grep . <<<"${SETTING[more]}")
  tpus queued-resources create "$NAME" "${nodes[@]}" \
    --accelerator-type="${SETTING[accelerator-type]}" \
    --runtime-version="${SETTING[runtime-version]:-$(runtime_version)}" "${more[@]}" "${words[@]}"
}

delete() { tpus queued-resources delete "$NAME" --force --quiet; }

# look: the queued resource's state into STATE, ABSENT where there is none. A dry run finds it ACTIVE.
look() {
  local answer attempt
  for attempt in 1 2 3 4 5; do
    if answer=$(tpus queued-resources describe "$NAME" --format='value(state.state)' 2>&1); then
      STATE=$(grep -xE '[A-Z_]+' <<<"$answer" | tail -n 1) || STATE=UNKNOWN # warnings go before it
      if $DRY_RUN; then STATE=ACTIVE; fi
      return
    elif [[ $answer == *NOT_FOUND* ]]; then
      STATE=ABSENT
      return
    fi
    say "gcloud failed (attempt $attempt of 5): $answer"
    pause "${SETTING[poll]}"
  done
  say "the run, if there is one, goes on without this script"
  exit 1
}

# await STATE…: until the queued resource is in one of these.
await() {
  local last=
  while look && [[ " $* " != *" $STATE "* ]]; do
    if [[ $STATE != "$last" ]]; then say "$NAME is $STATE"; fi
    last=$STATE
    pause "${SETTING[poll]}"
  done
}

wait_for_tpus() {
  await ACTIVE FAILED SUSPENDED ABSENT
  [[ $STATE == ACTIVE ]] || { say "$NAME is $STATE" && exit 1; }
}

# obtain: until the TPUs are there; what was taken away, or could not be had, is deleted and created.
obtain() {
  while await ACTIVE FAILED SUSPENDED ABSENT && [[ $STATE != ACTIVE ]]; do
    if [[ $STATE != ABSENT ]]; then
      say "$NAME is $STATE: deleting it, to create it again"
      delete || exit
      if [[ $STATE == FAILED ]]; then # what was taken away has been counted by `up`
        count_restart || exit "$HOST_LOST"
        pause "${SETTING[restart-wait]}"
      fi
    fi
    create || exit
  done
}

# send: the packed code to all workers, and install it there.
send() {
  reach scp "$ARCHIVE" "$NAME:emergent-alignment.tgz" --worker=all &&
    on_workers "mkdir -p emergent-alignment &&" \
      "tar -xzf emergent-alignment.tgz -C emergent-alignment && bash $WORKER install"
}

start() {
  local given=() before=()
  mapfile -t given < <(environment)
  if ((${#given[@]})); then before=(env "${given[@]}"); fi
  on_workers "$(quoted "${before[@]}" bash "$WORKER" start "$BUCKET" "$NAME" "${REST[@]}" \
    --cluster tpu)"
}

follow() { on_workers "bash $WORKER follow"; }

stop() { on_workers "bash $WORKER stop"; }

# ask: the lines of all workers' status into REPORT. False where the TPUs were taken away (the
# workers cannot be reached before the queue says so), or a worker cannot be reached for 10 polls.
ask() {
  local attempt
  for attempt in {1..10}; do
    look
    if [[ $STATE != ACTIVE ]]; then
      say "the TPUs were taken away ($NAME is $STATE)"
      return 1
    fi
    if REPORT=$(on_workers "bash $WORKER status"); then return; fi
    say "not all workers can be reached (attempt $attempt of 10)"
    pause "${SETTING[poll]}"
  done
  return 1
}

# verdict: into CODE the exit code that stands for those of all workers, or "running".
verdict() {
  local word code codes=() running=false
  CODE=$HOST_LOST
  ask || return 0
  while read -r word _ word code; do
    case $word in
      running) running=true ;;
      exited) codes+=("$code") ;;
      lost | idle) codes+=("$HOST_LOST") ;;
    esac
  done < <(grep '^worker ' <<<"$REPORT")
  if $running && [[ $(worst "${codes[@]}") == 0 ]]; then
    CODE=running
  elif ((${#codes[@]})); then
    CODE=$(worst "${codes[@]}")
  fi
}

count_restart() { may_restart "$(newest_checkpoint "$WORKDIR")" "${SETTING[max-restarts]}"; }

up() {
  local attached=false
  trap 'say "the run goes on: the same command follows it again"; exit 130' INT
  pack "$ARCHIVE" # once: what is edited during the run is not part of it
  REACHED=$(newest_checkpoint "$WORKDIR")
  look
  if [[ $STATE == ACTIVE && $(on_workers "bash $WORKER status" 2>/dev/null) == *' running'* ]]; then
    attached=true
  fi
  while true; do
    if $attached || { obtain && send && start; }; then follow || true; fi
    verdict
    attached=false
    case $CODE in
      running) # only the connection was lost
        attached=true
        pause "${SETTING[poll]}"
        continue
        ;;
      0) leave 0 "done, in $WORKDIR" ;;
      *) worth_restarting "$CODE" || leave "$CODE" "the run ended with exit code $CODE" ;;
    esac
    say "starting again after exit code $CODE"
    count_restart || leave "$CODE" "the run ended with exit code $CODE"
    pause "$(backoff "${SETTING[restart-wait]}")"
    if [[ $STATE == ACTIVE ]]; then stop || true; fi
  done
}

# leave CODE TEXT: the end of `up`.
leave() {
  say "$2"
  if ${SETTING[delete-when-done]}; then
    delete || true
  else
    say "the TPUs still cost money; give them back with: $(quoted "$0" delete \
      --project "${SETTING[project]}" --zone "${SETTING[zone]}" --name "$NAME")"
  fi
  exit "$1"
}

# What `up` runs where all goes well, and then what it runs where not.
plan() {
  pack "$ARCHIVE"
  newest_checkpoint "$WORKDIR" >/dev/null
  create
  wait_for_tpus
  send
  start
  follow
  verdict
  note "after any exit code but 0 and 2: stop the others, then from the queue's state on"
  stop
  note "taken away (SUSPENDED) or not to be had (FAILED): delete, then from the queue's state on"
  delete
}

main() {
  local command=${1-}
  case $command in
    up | create | wait | install | start | logs | stop | delete) shift ;;
    --help | -h) usage && exit ;;
    *) die "say what to do: up, create, wait, install, start, logs, stop or delete; see --help" ;;
  esac
  parse_flags "$@"
  require project my-project
  require zone europe-west4-b
  require name first
  require_count max-restarts restart-wait poll node-count
  environment >/dev/null
  case ${SETTING[accelerator-type]} in
    tpu7x* | v7x* | 7x*)
      die "--accelerator-type=${SETTING[accelerator-type]}: the Cloud TPU API has no TPU7x; use" \
        "launch/gke_xpk.sh with --tpu-type"
      ;;
  esac
  case $command in up | start) require bucket my-bucket ;; esac
  case $command in up | create) require accelerator-type v5litepod-16 ;; esac
  place_run
  ARCHIVE=${TMPDIR:-/tmp}/emergent-alignment-$NAME.tgz
  case $command in
    up) if $DRY_RUN; then plan; else up; fi ;;
    wait) wait_for_tpus ;;
    install) pack "$ARCHIVE" && send ;;
    logs) follow ;;
    *) "$command" ;;
  esac
}

main "$@"
