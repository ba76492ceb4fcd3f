#!/usr/bin/env bash
# Takes what exploring found into a corpus: merge.sh TARGET. Seeds stay; of the rest libFuzzer keeps the smallest set with the same coverage, of it
# the shortest files as far as they fit. Run `explore.sh` first, which builds what this runs.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
target="${1:?usage: $0 TARGET}"
# A corpus is part of every clone: all of them together stay below 1 MiB (tests/replay.rs).
files_max="${HOLESHOT_CORPUS_FILES:-120}"
bytes_max="${HOLESHOT_CORPUS_BYTES:-60000}"

triple="$(rustc -vV | sed -n 's/^host: //p')"
explore="${HOLESHOT_EXPLORE_TARGET_DIR:-$here/../../target/explore}/$triple/debug/explore"
merged="$(mktemp -d)"
trap 'rm -rf "$merged"' EXIT
cp "$here/corpus/$target"/seed-* "$merged/"
export HOLESHOT_FUZZ_TARGET="$target"
# -max_len: files of a corpus have at most 4 KiB. Sources are read in the order of their length, the shortest first.
"$explore" -merge=1 -max_len=4096 -timeout=5 -rss_limit_mb=1024 "$merged" "$here/found/$target" "$here/corpus/$target" 2>&1 | tail -3

# Files with words in their names are kept: seeds, and inputs that once failed.
find "$here/corpus/$target" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
kept=0
bytes=0
while read -r size path; do
    name="$(basename "$path")"
    case "$name" in seed-*) continue ;; esac
    if [ "$kept" -ge "$files_max" ] || [ $((bytes + size)) -gt "$bytes_max" ]; then break; fi
    cp "$path" "$here/corpus/$target/$name"
    kept=$((kept + 1))
    bytes=$((bytes + size))
done < <(find "$merged" -type f -printf '%s %p\n' | sort -n)
echo "$target: $kept files with $bytes bytes beside the seeds"
