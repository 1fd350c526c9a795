#!/usr/bin/env bash
# Shuts a file system down under a database that is being written to, as a loss of power does,
# and checks the database afterwards. Run it by hand, as root: it mounts ext4 and XFS from files.
#
#   scripts/power-cut.sh [rounds for each file system, by default 10]
#
# The shutdown ioctl, without a flush of the journal, drops all data that the file system has not
# written. Even rounds run at `Full`, where no acknowledged commit may be lost. Odd rounds run at
# `Relaxed`, where the commits that survive must be a prefix of each writer's commits. The writer
# and the checks are those of crates/fluxmap/tests/kill.rs.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "SKIPPED: $*" >&2; }

[ "$(id -u)" = 0 ] || { skip "mounting needs root, so no power was cut"; exit 0; }
command -v python3 >/dev/null || { skip "the script needs python3 to issue the ioctl, and there is none"; exit 0; }
rounds=${1:-10}

program=$(cargo test -p fluxmap --test kill --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("target", {}).get("name") == "kill" and message.get("executable"):
        print(message["executable"])')

work=$(mktemp -d)
mount=$work/mount
mkdir "$mount"
child=
cleanup() {
    [ -z "$child" ] || kill -9 "$child" 2>/dev/null || true
    umount "$mount" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number, _IOR('X', 125, __u32). The argument 2
# means not to flush the journal.
cut_off() {
    python3 -c 'import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(directory, 0x8004587D, struct.pack("I", 2))' "$mount"
}

try() {
    local kind=$1
    shift
    if ! command -v "mkfs.$kind" >/dev/null; then
        skip "there is no mkfs.$kind, so $kind was not tried"
        return
    fi
    local image=$work/$kind.image acks=$work/$kind.acks
    truncate -s 400M "$image"
    "mkfs.$kind" "$@" "$image" >/dev/null
    if ! mount -o loop "$image" "$mount"; then
        skip "this machine does not mount $kind from a file"
        return
    fi
    : >"$acks"
    for ((round = 0; round < rounds; round++)); do
        local level=full segments=4096,3 heard=$work/heard
        [ $((round % 2)) = 0 ] || level=relaxed
        [ $((round % 4)) -lt 2 ] || segments=1048576,3
        # Each level has its own directory: the check at `Full` would miss the commits that a
        # round at `Relaxed` may lose.
        FLUXMAP_KILL_CHILD="$round,$level,$segments,$mount/$level" \
            "$program" child --exact --nocapture --test-threads=1 >"$heard" 2>"$work/errors" &
        child=$!
        # Wait until the process has acknowledged a random number of commits.
        while [ "$(wc -l <"$heard")" -lt $((RANDOM % 900 + 20)) ] && kill -0 "$child" 2>/dev/null; do :; done
        cut_off
        # Kill the process at once: its disk is gone, so it must acknowledge no more commits.
        kill -9 "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
        child=
        umount "$mount"
        mount -o loop "$image" "$mount"
        [ $level = relaxed ] || grep '^ack ' "$heard" >>"$acks" || true
        echo "$kind, round $round, $level, segments $segments:"
        { [ $level = relaxed ] && grep '^ack ' "$heard" || cat "$acks"; } |
            FLUXMAP_KILL_CHECK="$level,$mount/$level" "$program" check_directory --exact --nocapture 2>&1 |
            tee "$work/said" | grep '^check:' || { cat "$work/said" >&2; exit 1; }
    done
    umount "$mount"
    echo "$kind: $rounds cuts, no acknowledged commit was lost"
}

try ext4 -q
try xfs -q
