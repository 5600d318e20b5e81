#!/usr/bin/env bash
#
# What launch/tpu_vm.sh runs on each host. The training has a session of its own, so that it outlives the connection.
#
#   launch/tpu_host.sh train RESTARTS ARGUMENTS     starts `harvest train ARGUMENTS` unless it runs; follows its log to
#                                                   the end, and ends with its status
#   launch/tpu_host.sh stop                         SIGTERM; returns when the state is saved
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

free() { # no run holds the lock
  flock --nonblock run.lock true
}

case "$1" in
  train)
    if free; then
      rm -f run.pid run.status
      setsid flock run.lock launch/tpu_host.sh run "${@:2}" >>run.log 2>&1 </dev/null &
    fi
    until [[ -s run.pid ]]; do sleep 0.1; done
    tail -n 20 --pid="$(<run.pid)" -f run.log
    flock run.lock true
    exit "$(<run.status)"
    ;;
  run)
    .venv/bin/python -m launch.restarts --restarts "$2" -- .venv/bin/harvest train "${@:3}" &
    echo $! >run.pid
    wait $! && status=0 || status=$?
    echo "$status" >run.status
    ;;
  stop)
    free || { kill "$(<run.pid)" && flock run.lock true; }
    ;;
esac
