#!/usr/bin/env bash
# Runs a mixed load at a memory limit from four threads, with audits.
#
#   scripts/soak.sh [SECONDS [POLICY...]]
#
# The policies (all by default) share the SECONDS (an hour by default). Each runs in a separate
# process. The script fails if an audit fails, if a thread dies, or if the memory of a process is
# not flat: if its maximum in the last quarter is more than a tenth above that in the second.
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
