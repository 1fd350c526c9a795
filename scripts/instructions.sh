#!/bin/sh
# Counts the instructions of operations with callgrind:
#   scripts/instructions.sh [-k KEYS] [-o OPEN] [-n COUNT] OPERATION...
# Meanwhile OPEN transactions are open, each at a different timestamp. The operations are those of
# crates/bench/examples/instructions.rs: get, snapshot, begin, snapshot-get, update, insert,
# transact, transfer, visit, scan, on-call, and reads-N and writes-N for some N. Without valgrind,
# the script prints SKIPPED.
set -eu
cd "$(dirname "$0")/.."
keys=10000 open=0 count=20000
while getopts k:o:n: option; do
    case $option in
        k) keys=$OPTARG ;;
        o) open=$OPTARG ;;
        n) count=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "name at least one operation: the beginning of this script lists them" >&2; exit 2; }
command -v valgrind >/dev/null || { echo "SKIPPED: there is no valgrind here" >&2; exit 0; }
cargo build --release --quiet -p fluxmap-bench --example instructions
program=${CARGO_TARGET_DIR:-target}/release/examples/instructions
total() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$keys" "$open" "$2" 2>&1 |
        sed -n 's/.*Collected : //p'
}
for operation in "$@"; do
    "$program" "$operation" "$keys" 0 1 # Ends the script if there is no operation of this name.
done
nothing=$(total nothing "$count")
for operation in "$@"; do
    all=$(total "$operation" "$count")
    echo "$operation $(((all - nothing) / count))"
done
