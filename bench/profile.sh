#!/usr/bin/env bash
# Profiles one run of a measure, client and router, with Linux perf, and prints where each thread spends its time.
#
#   bench/profile.sh [MEASURE] [ARGUMENT …]     profile.sh e2e --seconds 5
#
# Samples by the clock, because virtual machines often have no hardware counters, and unwinds by the debug information,
# because nothing is built with frame pointers. The first 1.5 s (start and warm-up) are left out. `bench` is the client;
# all other threads are the router's.
set -euo pipefail
cd "$(dirname "$0")/.."

measure=${1:-synced}
[ $# -gt 0 ] && shift
target=${CARGO_TARGET_DIR:-target}
cargo build --release --quiet -p quipu
cargo build --release --quiet -p bench

data=$target/perf.data
perf record --quiet --event cpu-clock --freq 999 --delay 1500 --call-graph dwarf,8192 --output "$data" -- \
    "$target/release/bench" "$measure" --quipu "$target/release/quipu" --rounds 1 --only quipu --seconds 6 "$@"

report() { # ARGUMENT …
    perf report --input "$data" --stdio --no-inline --call-graph none "$@" 2> /dev/null |
        grep -v '^#' | grep . | sed 's/ *- *- *$//' | cut -c 1-160 || true
}

echo '== all threads'
report --no-children --sort comm
for thread in tokio-rt-worker quipu-store quipu-journal quipu-checkpoin bench; do
    echo "== $thread: by itself"
    report --no-children --sort comm,symbol | grep -F " $thread " | head -20 || true
    echo "== $thread: with what it calls"
    report --children --comms "$thread" --sort symbol | head -50
done
echo "== callers, for example: perf report -i $data --no-inline --no-children --comms quipu-store -g caller"
