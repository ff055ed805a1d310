# shellcheck shell=bash
# What the launch scripts share: settings from flags, mistakes in one line, dry runs, what an exit
# code means, and the limit on restarts that bring nothing. Sourced, never started.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "${0##*/}: bash 4.4 or newer is needed, this is $BASH_VERSION (macOS: brew install bash)" >&2
  exit 2
fi

# Exit codes of emergent-alignment: 0 done; 2 a user's mistake; 69 network, hub, bucket or another
# host did not answer; 75 asked to stop, saved, goes on when started again; 76 another host died, or
# there was no progress.
# shellcheck disable=SC2034 # the scripts read some
readonly MISTAKE=2 UNREACHABLE=69 STOPPED=75 HOST_LOST=76

# Of gcsfuse: what another host has written must be seen at once. Nothing of ours renames a folder;
# a logger of the user's may. https://cloud.google.com/storage/docs/cloud-storage-fuse/cli-options
# shellcheck disable=SC2034 # the scripts read it
readonly MOUNT_OPTIONS=(implicit-dirs rename-dir-limit=200000 metadata-cache-ttl-secs=0
  metadata-cache-negative-ttl-secs=0)

DRY_RUN=false
declare -A SETTING=() # flag without its dashes → value; a script lists its flags with their defaults
SWITCHES=()           # those of them that take no value; "true" once given
REPEATED=()           # those that may come several times; a value a line
REST=()               # what came after the flags

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$*"
  exit "$MISTAKE"
}

# parse_flags "$@": `--name value` and `--name=value` into SETTING, up to `--` or the first word that
# is no flag; the words after that into REST. --help calls the script's usage.
parse_flags() {
  local name
  while (($#)); do
    case $1 in
      --help | -h) usage && exit 0 ;;
      --dry-run)
        DRY_RUN=true
        exec 3>&1 # dry runs print there, also from inside $(…)
        ;;
      --) shift && break ;;
      --*)
        name=${1%%=*} name=${name#--}
        [[ -n ${SETTING[$name]+known} ]] || die "unknown flag --$name; see --help"
        if [[ " ${SWITCHES[*]} " == *" $name "* ]]; then
          [[ $1 != *=* ]] || die "--$name takes no value"
          SETTING[$name]=true
        elif [[ $1 == *=* ]]; then
          set_flag "$name" "${1#*=}"
        else
          [[ -n ${2-} && $2 != --* ]] || die "--$name needs a value"
          set_flag "$name" "$2"
          shift
        fi
        ;;
      *) break ;;
    esac
    shift
  done
  REST=("$@")
}

set_flag() {
  if [[ " ${REPEATED[*]} " == *" $1 "* ]]; then
    SETTING[$1]+=$2$'\n'
  else
    SETTING[$1]=$2
  fi
}

# environment: the --env of the settings as NAME=VALUE, a line each; a NAME alone has the value that
# it has here.
environment() {
  local line
  while IFS= read -r line; do
    [[ -n $line ]] || continue
    [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*(=|$) ]] || die "--env $line: give NAME=VALUE or NAME"
    if [[ $line != *=* ]]; then
      [[ -n ${!line+set} ]] || die "--env $line: it is not set here; give $line=VALUE"
      line=$line=${!line}
    fi
    printf '%s\n' "$line"
  done <<<"${SETTING[env]}"
}

# require NAME EXAMPLE: the setting must be there.
require() { [[ -n ${SETTING[$1]} ]] || die "--$1 is missing, e.g. --$1=$2"; }

# require_count NAME…: the settings must be whole numbers.
require_count() {
  local name
  for name; do
    [[ ${SETTING[$name]} =~ ^[0-9]+$ ]] || die "--$name=${SETTING[$name]} is no whole number"
  done
}

# quoted WORD…: a line that a shell reads as these words.
quoted() {
  local word line=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    line+=("$word")
  done
  printf '%s\n' "${line[*]}"
}

# outer COMMAND…: run it, or in a dry run print it.
outer() {
  if $DRY_RUN; then quoted "$@" >&3; else "$@"; fi
}

# note TEXT: a comment between the commands of a dry run.
note() {
  if $DRY_RUN; then printf '# %s\n' "$*" >&3; fi
}

pause() { $DRY_RUN || sleep "$1"; }

# prefix LABEL: every line of stdin with the label before it, as it comes. (mawk, which is Ubuntu's
# awk, would hold lines back, and BSD's sed has another flag for not doing so than GNU's.)
prefix() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do printf '%s%s\n' "$1" "$line"; done
}

# worst CODE…: the one exit code that stands for those of several hosts. A mistake comes first, since
# trying again is useless; then any other failure of the program, then an end by a signal (128 and
# more), then 69, then 75, then 76, which only follows from what befell another host.
worst() {
  local code rank top=0 answer=0
  for code; do
    case $code in
      0) rank=0 ;;
      "$HOST_LOST") rank=1 ;;
      "$STOPPED") rank=2 ;;
      "$UNREACHABLE") rank=3 ;;
      "$MISTAKE") rank=6 ;;
      *) rank=$((code >= 128 ? 4 : 5)) ;;
    esac
    if ((rank > top)); then top=$rank answer=$code; fi
  done
  echo "$answer"
}

# worth_restarting CODE: whatever it is but done or a mistake: a chip, a network or a disk that fails
# shows in many ways, and what fails for ever brings no checkpoint.
worth_restarting() { (($1 != 0 && $1 != MISTAKE)); }

# newest_checkpoint WORKDIR: the steps done at its newest checkpoint, -1 where there is none. One is
# whole by a mark in it, or, with a former Orbax on a disk, where its record says when it was.
newest_checkpoint() {
  local names mark=commit_success.txt whole='"commit_timestamp_nsecs": *[0-9]'
  case $1 in
    gs://*) names=$(outer gcloud storage ls "$1/checkpoints/*/$mark" 2>/dev/null) || true ;;
    *) names=$(grep -ls "$whole" "$1"/checkpoints/*/_CHECKPOINT_METADATA) || true ;;
  esac
  awk -F/ -v newest=-1 'NF > 1 && $(NF - 1) ~ /^[0-9]+$/ && $(NF - 1) + 0 > newest {
    newest = $(NF - 1) + 0 } END { print newest }' <<<"$names"
}

RESTARTS=0 # in a row that brought no checkpoint
REACHED=-1 # the newest checkpoint seen

# may_restart STEP LIMIT: count a restart, with the newest checkpoint at STEP; false when it is the
# LIMIT + 1st in a row that brought no checkpoint.
may_restart() {
  if (($1 > REACHED)); then
    REACHED=$1 RESTARTS=0
    return
  fi
  RESTARTS=$((RESTARTS + 1))
  ((RESTARTS <= $2)) || { say "no new checkpoint in $2 restarts: giving up" && return 1; }
}

# backoff SECONDS: how long to wait before a restart: twice as long for each that brought nothing, and
# 10 minutes at most.
backoff() {
  local doublings=$((RESTARTS > 1 ? RESTARTS - 1 : 0)) seconds
  seconds=$(($1 << (doublings < 10 ? doublings : 10)))
  echo $((seconds < 600 || $1 > 600 ? seconds : 600))
}

# place_bucket: BUCKET, from the settings.
place_bucket() {
  BUCKET=${SETTING[bucket]#gs://}
  [[ $BUCKET =~ ^[a-z0-9._-]*$ ]] || die "--bucket=${SETTING[bucket]}: give the bucket's name alone"
}

# place_run: NAME, BUCKET and WORKDIR of a run on Google Cloud, from the settings.
place_run() {
  [[ " ${REST[*]}" != *" --workdir"* ]] || die "leave --workdir out: it is gs://BUCKET/NAME"
  NAME=${SETTING[name]}
  [[ $NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--name=$NAME: use a-z, 0-9 and -, a-z first"
  place_bucket
  # shellcheck disable=SC2034 # the scripts read it
  WORKDIR=gs://$BUCKET/$NAME
}

# travels PATH: whether it is there, below this folder, so that it has the same name elsewhere.
travels() { [[ $1 != /* && $1 != . && $1 != *..* && -e $1 ]]; }

# project_files: PROJECT, the words that tell tar the project's files. A wheel has configs/ and launch/
# within the package, and what the package is installed by in launch/project.
project_files() {
  local launch installer=(setup.py pyproject.toml constraints.txt README.md)
  launch=$(dirname "${BASH_SOURCE[0]}")
  PROJECT=(-C "$launch/.." emergent_alignment configs launch "${installer[@]}")
  if [[ -d $launch/project ]]; then
    launch=$(cd "$launch" && pwd)
    PROJECT=(-C "$launch/../.." emergent_alignment -C "$launch/.." configs launch
      -C "$launch/project" "${installer[@]}")
  fi
}

# bundled NAME: whether a config that comes with the package has this name.
bundled() { [[ $1 != */* && -f "$(dirname "${BASH_SOURCE[0]}")/../configs/${1}.py" ]]; }

# pack ARCHIVE: the project's code, and what else the flags of train name (before or after an `=`)
# of this folder's files: the config, rows of data.
pack() {
  local archive=$1 word former='' files=()
  for word in "${REST[@]}"; do
    if [[ $word == --config=* || $former == --config ]]; then
      word=${word#--config=}
      word=${word%%:*} # FILE:ARGUMENT
      travels "$word" || bundled "$word" ||
        die "--config $word: there is no such file below this folder, and no config of that name"
    fi
    former=$word word=${word#*=}
    if travels "$word"; then files+=("$word"); fi
  done
  project_files
  outer tar -czf "$archive" --exclude=__pycache__ "${files[@]}" "${PROJECT[@]}"
}
