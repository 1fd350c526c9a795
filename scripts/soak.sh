#!/usr/bin/env bash
# Mixed load at a memory limit from four threads, with audits:
#
#   scripts/soak.sh [SECONDS [POLICY...]]
#
# SECONDS, by default an hour, are shared by the policies, by default all of them, each in a
# process of its own. Fails if any audit does, if a thread dies, or if the memory of a process
# is not flat: the largest of the last quarter more than a tenth above that of the second.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-3600}
policies=("${@:2}")
[ ${#policies[@]} -gt 0 ] || policies=(Lru Lfu Random Arc Ttl S3Fifo Manual)

cargo build --release --package fluxmap --example soak
soak="${CARGO_TARGET_DIR:-target}/release/examples/soak"

failed=0
for policy in "${policies[@]}"; do
    "$soak" $((seconds / ${#policies[@]})) "$policy" || failed=1
done
exit $failed
