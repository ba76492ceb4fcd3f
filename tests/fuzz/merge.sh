#!/usr/bin/env bash
# Takes what exploring found into a corpus: merge.sh TARGET. Seeds and inputs that once failed stay; libFuzzer looks for a small set with the same coverage,
# and of that as many as a corpus may have, from the shortest to the longest. Run `explore.sh` first, which builds what this runs.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
target="${1:?usage: $0 TARGET}"
# A corpus is part of every clone: all of them together are a few hundred files and less than 1 MiB (tests/replay.rs).
files_max="${HOLESHOT_CORPUS_FILES:-24}"
bytes_max="${HOLESHOT_CORPUS_BYTES:-40000}"

triple="$(rustc -vV | sed -n 's/^host: //p')"
explore="${HOLESHOT_EXPLORE:-${HOLESHOT_EXPLORE_TARGET_DIR:-$here/../../target/explore}/$triple/debug/explore}"
merged="$(mktemp -d)"
trap 'rm -rf "$merged"' EXIT
export HOLESHOT_FUZZ_TARGET="$target"
# -max_len: files of a corpus have at most 4 KiB.
"$explore" -set_cover_merge=1 -max_len=4096 -timeout=5 -rss_limit_mb=1024 "$merged" "$here/found/$target" "$here/corpus/$target" 2>&1 | tail -1

# Those named by 40 hexadecimal digits are from a merge before; words in a name are a person's.
find "$here/corpus/$target" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
known="$(cd "$here/corpus/$target" && sha1sum -- * | cut -d' ' -f1)"
mapfile -t files < <(find "$merged" -type f -printf '%s %f\n' | sort -n | grep -vF "$known")
kept=0
bytes=0
for ((at = 0; at < files_max && at < ${#files[@]}; at++)); do
    # Evenly over all lengths.
    pick=$((${#files[@]} <= files_max ? at : at * ${#files[@]} / files_max))
    read -r size name <<<"${files[pick]}"
    if [ $((bytes + size)) -gt "$bytes_max" ]; then break; fi
    cp "$merged/$name" "$here/corpus/$target/$name"
    kept=$((kept + 1))
    bytes=$((bytes + size))
done
echo "$target: $kept files with $bytes bytes beside those with names, of ${#files[@]}"
