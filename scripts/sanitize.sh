#!/usr/bin/env bash
# Runs the tests of the index under the sanitizers of the nightly compiler:
#
#   address   use after free, double free, out of bounds; and leaks at the end
#   leak      leaks alone, without the other's slower memory
#   thread    data races
#
# Four minutes, of which three to build. Arguments pick sanitizers: all by default.
#
# The standard library is not instrumented, so thread sanitizer knows of no
# synchronization inside it. The tests use locks and joins that it does see; one
# test that ends an index by the count of `Arc` alone is left out. What the index
# does needs no exception: each free follows the last look by an Acquire load of
# the slot that the reader released, which thread sanitizer understands, and what
# the fences order is that a reader does not get there at all.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: no nightly toolchain, so no sanitizer ran" >&2
    exit 0
fi
if [ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ]; then
    echo "SKIPPED: the sanitizers are set up for $target only" >&2
    exit 0
fi

suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
# What the test harness shares between its threads: a channel of results, the
# test to run, what it prints.
cat >"$suppressions" <<'END'
race:test::event::CompletedTest
race:Arc<std::sync::poison::mutex::Mutex<core::option::Option<test::run_test
race:Arc<std::sync::poison::mutex::Mutex<alloc::vec::Vec<u8>>
END
export TSAN_OPTIONS="suppressions=$suppressions"

base="${CARGO_TARGET_DIR:-target}"
# Fewer rounds, since each step takes longer.
export FLUXMAP_TEST_DIVISOR=4

run() {
    local sanitizer=$1
    shift
    printf '\n== %s sanitizer\n' "$sanitizer"
    local flags="-Zsanitizer=$sanitizer"
    if [ "$sanitizer" = thread ]; then
        flags+=" -Cunsafe-allow-abi-mismatch=sanitizer"
    fi
    RUSTFLAGS="$flags" CARGO_TARGET_DIR="$base/sanitize-$sanitizer" cargo +nightly test \
        --package fluxmap-index --target "$target" --lib --tests --no-fail-fast -- "$@"
}

for sanitizer in "${@:-address leak thread}"; do
    for each in $sanitizer; do
        case $each in
            # What is named so leaks by design.
            address | leak) run "$each" --skip forgotten ;;
            thread) run thread --test-threads 1 --skip threads_share_the_end ;;
            *)
                echo "no such sanitizer: $each" >&2
                exit 2
                ;;
        esac
    done
done
