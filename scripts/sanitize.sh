#!/usr/bin/env bash
# Runs the tests of the index under the sanitizers of the nightly compiler:
#
#   address   use after free, double free, out of bounds; and leaks at the end
#   leak      leaks alone, without the slower memory access of address
#   thread    data races
#
# Arguments select sanitizers; all run by default. They take four minutes, three of them for
# building.
#
# The standard library is not instrumented, so the thread sanitizer does not see the
# synchronization inside it. It does see the locks and joins that the tests use. One test is
# left out, because it ends an index by the reference count of an `Arc` alone. The index
# itself needs no exception. Before it frees an object, it loads with Acquire the slot that
# the last reader released, which the thread sanitizer understands. The fences, which it
# does not understand, only keep later readers from reaching the object.
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
# Data that the test harness shares between its threads: a channel of results, the test to
# run, and its captured output.
cat >"$suppressions" <<'END'
race:test::event::CompletedTest
race:Arc<std::sync::poison::mutex::Mutex<core::option::Option<test::run_test
race:Arc<std::sync::poison::mutex::Mutex<alloc::vec::Vec<u8>>
END
export TSAN_OPTIONS="suppressions=$suppressions"

base="${CARGO_TARGET_DIR:-target}"
# Run fewer rounds, because each step takes longer.
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
            # Tests with "forgotten" in their names leak by design.
            address | leak) run "$each" --skip forgotten ;;
            thread) run thread --test-threads 1 --skip threads_share_the_end ;;
            *)
                echo "no such sanitizer: $each" >&2
                exit 2
                ;;
        esac
    done
done
