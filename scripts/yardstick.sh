#!/usr/bin/env bash
# Measures how well the simulation finds bugs. It plants each fault of crates/world/faults.txt, one at a
# time, and runs worlds until one fails. For each fault it prints the seconds and the worlds that this took.
#
#   scripts/yardstick.sh [seconds for each fault at most, by default 600] [fault ...]
#
# The exit status is 1 if a fault was not found.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
faults=("$@")
if [ ${#faults[@]} -eq 0 ]; then
    mapfile -t faults < <(sed -n 's/^\([a-z][a-z0-9-]*\).*/\1/p' crates/world/faults.txt)
fi

# Use a separate build directory: no other build contains the faults.
export FLUXMAP_YARDSTICK=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/yardstick"
cargo build --quiet -p fluxmap-world
stands=0
for fault in "${faults[@]}"; do
    if output=$(FLUXMAP_PLANTED=$fault "$CARGO_TARGET_DIR/debug/world" --seconds "$seconds" --no-shrink 2>&1); then
        echo "$fault: STANDS after $seconds s: $(tail -n 1 <<<"$output")"
        stands=1
    else
        echo "$fault: $(grep -a -m 1 ' fails after ' <<<"$output"): $(grep -a -m 1 -o 'fails: .*' <<<"$output" | cut -c8-160)"
    fi
done
exit $stands
