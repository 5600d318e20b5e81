#!/usr/bin/env bash
#
# `harvest train` on a Cloud TPU VM or pod slice: the same line on every host; JAX finds the other hosts by itself.
#
#   launch/tpu_vm.sh --name NAME --zone ZONE --type v5litepod-16 [options] -- --config FILE --workdir DIR [...]
#
#   --steps LIST     of create,copy,train,stop,delete, in this order (default: create,copy,train)
#   --project P      default: gcloud's own
#   --version V      TPU software version (default: the common one of the type)
#   --queued         wait in Google's queue for the machine (queued resources) instead of failing when there is none
#   --spot           a machine that may be taken away
#   --restarts R     after crashes, at most (default: 20); only while new checkpoints keep coming (launch/restarts.py)
#   --setup FILE     shell script run on every host after the copy: mount the file system that holds shards and workdir
#   --dry_run        print the commands, run none
#
# The workdir and the shards must lie in a folder that all hosts see (Filestore, or a bucket mounted with gcsfuse by
# the setup script). What is copied is the commit at HEAD. The run goes on when this command or its connection ends:
# --steps train again follows it, or starts it again once it has ended; --steps stop saves and ends it. After a spot
# machine was taken away, --steps delete,create,copy,train goes on from the last checkpoint.
set -euo pipefail

fail() {
  echo "tpu_vm.sh: $*" >&2
  exit 2
}

name='' zone='' type='' project='' version='' setup='' steps='create,copy,train' spot=false dry_run=false queued=false restarts=20
while [[ $# -gt 0 ]]; do
  case "$1" in
    --name | --zone | --type | --project | --version | --setup | --steps | --restarts)
      [[ $# -ge 2 ]] || fail "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --spot) spot=true; shift ;;
    --queued) queued=true; shift ;;
    --dry_run | --dry-run) dry_run=true; shift ;;
    --) shift; break ;;
    -h | --help) sed -n '3,22s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown option $1; what \`harvest train\` takes comes after --" ;;
  esac
done
arguments=()
for argument in "$@"; do
  case "$argument" in
    --dry_run | --dry-run) dry_run=true ;;
    --config.distributed=*) ;;
    *) arguments+=("$argument") ;;
  esac
done
[[ -n "$name" && -n "$zone" ]] || fail "--name and --zone are needed"
IFS=',' read -r -a wanted <<<"$steps"
for step in "${wanted[@]}"; do
  case "$step" in
    create) [[ -n "$type" ]] || fail "--type is needed to create (v5litepod-16, v6e-8, v4-32, ...)" ;;
    train) [[ ${#arguments[@]} -gt 0 ]] || fail "after --: what \`harvest train\` takes (--config FILE --workdir DIR)" ;;
    copy | stop | delete) ;;
    *) fail "--steps: $step must be one of create, copy, train, stop, delete" ;;
  esac
done
[[ "$restarts" =~ ^[0-9]+$ ]] || fail "--restarts $restarts: a whole number"
[[ -z "$setup" || -f "$setup" ]] || fail "no file $setup"
if [[ -z "$version" ]]; then
  case "$type" in
    v6e*) version='v2-alpha-tpuv6e' ;;
    v5p*) version='v2-alpha-tpuv5' ;;
    v5lite*) version='v2-alpha-tpuv5-lite' ;;
    *) version='tpu-ubuntu2204-base' ;;
  esac
fi

where=(--zone "$zone")
[[ -z "$project" ]] || where+=(--project "$project")
tpu=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)

run() {
  if $dry_run; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_every_host() {
  run "${tpu[@]}" ssh "$name" "${where[@]}" --worker=all --command "$1"
}

create() {
  local options=("${where[@]}" --accelerator-type "$type")
  if $spot; then options+=(--spot); fi
  if $queued; then
    run "${queue[@]}" create "$name" --node-id "$name" "${options[@]}" --runtime-version "$version"
    wait_for_machine
  else
    run "${tpu[@]}" create "$name" "${options[@]}" --version "$version"
  fi
}

wait_for_machine() {
  local describe=("${queue[@]}" describe "$name" "${where[@]}" --format 'value(state.state)') state=''
  if $dry_run; then run "${describe[@]}"; return; fi
  while [[ "$state" != ACTIVE ]]; do
    state="$("${describe[@]}")"
    case "$state" in
      ACTIVE) ;;
      FAILED | SUSPEND* | DELETING) fail "the queued resource $name is $state" ;;
      *) sleep "${HARVEST_POLL_SECONDS:-30}" ;;
    esac
  done
}

copy() {
  local here archive
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  if $dry_run; then archive=harvest_jax.tar.gz; else archive="$(mktemp -d)/harvest_jax.tar.gz"; fi
  run git -C "$here" archive --format=tar.gz --prefix=harvest_jax/ --output "$archive" HEAD
  run "${tpu[@]}" scp "$archive" "$name:harvest_jax.tar.gz" "${where[@]}" --worker=all
  # shellcheck disable=SC2016 # expanded on the hosts
  # The TPU images' own python3 may be too old; Ubuntu has a newer one beside it.
  on_every_host 'set -e; tar -xzf harvest_jax.tar.gz; cd harvest_jax
python=python3; $python -c "import sys; sys.exit(sys.version_info < (3, 11))" || {
  python=python3.11; sudo apt-get update -q && sudo apt-get install -q -y python3.11 python3.11-venv; }
test -x .venv/bin/python || $python -m venv .venv
.venv/bin/python -m pip install --quiet -c constraints.txt -e ".[tpu]"'
  if [[ -n "$setup" ]]; then
    run "${tpu[@]}" scp "$setup" "$name:harvest_setup.sh" "${where[@]}" --worker=all
    on_every_host 'bash harvest_setup.sh'
  fi
}

train() {
  local line
  printf -v line '%q ' launch/tpu_host.sh train "$restarts" "${arguments[@]}" --config.distributed=true
  on_every_host "cd harvest_jax && exec ${line% }"
}

stop() {
  on_every_host 'cd harvest_jax && exec launch/tpu_host.sh stop'
}

delete() {
  if $queued; then
    run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet
  else
    run "${tpu[@]}" delete "$name" "${where[@]}" --quiet
  fi
}

for step in "${wanted[@]}"; do
  "$step"
done
