#!/bin/sh
# Measures how long a commit holds the commit lock, by the number of its writes, on one thread: the time
# of a transaction, times the share of its samples that perf finds in `Order::apply`. This function does
# all the work under the lock, except taking and releasing it. The variable KEYS sets the number of keys.
# Without perf, the script prints SKIPPED.
set -eu
cd "$(dirname "$0")/.."
command -v perf >/dev/null || { echo "SKIPPED: there is no perf here" >&2; exit 0; }
# perf needs frame pointers to find callers.
export RUSTFLAGS="-C force-frame-pointers=yes" CARGO_TARGET_DIR=target/frame-pointers
cargo build --release --quiet -p fluxmap-bench --example instructions
program=$CARGO_TARGET_DIR/release/examples/instructions
samples=$(mktemp)
trap 'rm -f "$samples"' EXIT
keys=${KEYS:-20000}
microseconds() {
    begun=$(date +%s%N)
    "$program" "$1" "$keys" 0 "$2"
    echo $((($(date +%s%N) - begun) / 1000))
}
share() {
    perf report --input "$samples" --children --fields overhead_children,sym --stdio \
        --call-graph caller,90 2>/dev/null | sed -n "s/^ *\([0-9.]*\)%.*$1.*/\1/p" | head -1
}
echo "writes  ns in a transaction  ns in its critical section"
for writes in 1 2 4 16; do
    count=$((3200000 / writes))
    without=$(microseconds nothing 0)
    with=$(microseconds "writes-$writes" "$count")
    perf record --quiet --freq 3000 --call-graph fp --output "$samples" \
        "$program" "writes-$writes" "$keys" 0 "$count" >/dev/null 2>&1
    awk -v writes="$writes" -v all="$(((with - without) * 1000 / count))" \
        -v apply="$(share 'commit::Order<K,V>::apply')" -v operate="$(share 'instructions::operate')" \
        'BEGIN { printf "%6d %20d %27.0f\n", writes, all, all * apply / operate }'
done
