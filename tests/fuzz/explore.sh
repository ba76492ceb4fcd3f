#!/usr/bin/env bash
# Explores a fuzz target with libFuzzer: explore.sh TARGET SECONDS [options of libFuzzer]
# Needs stable Rust and a C++ compiler, and nothing else. README.md says what to do with what it finds.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
if [ $# -lt 2 ]; then
    echo "usage: $0 TARGET SECONDS [options of libFuzzer]; targets: $(ls "$here/corpus" | tr '\n' ' ')" >&2
    exit 2
fi
target="$1"
seconds="$2"
shift 2
[ -d "$here/corpus/$target" ] || { echo "no target $target; there are: $(ls "$here/corpus" | tr '\n' ' ')" >&2; exit 2; }

triple="$(rustc -vV | sed -n 's/^host: //p')"
export CARGO_TARGET_DIR="${HOLESHOT_EXPLORE_TARGET_DIR:-$here/../../target/explore}"
# With --target, what is built for build scripts is told from what is explored.
(cd "$here/explore" && RUSTC_WRAPPER="$here/explore/instrument.sh" cargo build --locked --target "$triple")

# What is found goes here first; `merge.sh` takes what is worth keeping into the corpus.
found="$here/found/$target"
crashes="$here/crashes/$target"
mkdir -p "$found" "$crashes"

# The lengths are those of holeshot_fuzz::input_bytes_max: what is longer finds nothing that shorter inputs do not, and takes its time.
case "$target" in
    datagram) len=1201 ;;
    handshake) len=256 ;;
    ticket) len=2100 ;;
    *) len=4096 ;;
esac
dict=()
[ -f "$here/dictionaries/$target" ] && dict=(-dict="$here/dictionaries/$target")

# -timeout: no input of these lengths takes a millisecond of a decoder, and some ten of the recorder's database; one that takes five seconds is a fault.
# -rss_limit_mb: the program itself takes some 100 MiB; an input of 4 KiB that takes hundreds more is one.
HOLESHOT_FUZZ_TARGET="$target" exec "$CARGO_TARGET_DIR/$triple/debug/explore" \
    -max_total_time="$seconds" -max_len="$len" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$crashes/" "${dict[@]}" "$@" "$found" "$here/corpus/$target"
