#!/usr/bin/env bash
# Runs random concurrent histories on real threads, and checks each for strict serializability, until
# the given number of transactions has committed.
#
#   scripts/histories.sh [transactions, by default 10000000]
#
# The last line is a summary. The exit status is 1 at the first history that no order explains.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=${1:-10000000}
# With scale 1, the three tests that are counted commit some 120,000 transactions.
scale=8
cargo test --release --quiet -p fluxmap --test histories --no-run
committed=0
while [ "$committed" -lt "$wanted" ]; do
    output=$(FLUXMAP_SCALE=$scale cargo test --release --quiet -p fluxmap --test histories -- --nocapture serializable 2>&1) || {
        echo "$output"
        exit 1
    }
    round=$(grep -a -o '[0-9]* transactions committed' <<<"$output" | awk '{ sum += $1 } END { print sum + 0 }')
    [ "$round" -gt 0 ] || { echo "no transactions were counted: $output" >&2; exit 1; }
    committed=$((committed + round))
    echo "$committed of $wanted transactions"
done
echo "$committed transactions in histories, every one of them strictly serializable"
