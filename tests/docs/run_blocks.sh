#!/bin/bash
# Runs the commands that a page shows: run_blocks.sh PAGE SOURCE_DIR PROGRAM_DIR SCRATCH
#
#   ```sh            a block of commands: run from first to last, with errors fatal, in a scratch copy of the tree
#                    that all blocks of the page share; the built `costate` is on PATH
#   ```sh norun      a block that is not run; the line above says why: <!-- norun: the reason -->
#
#   ```cpp ```cmake  a quotation; the line above says of what: <!-- from: FILE -->. Its lines must stand in that file
#
# What commands print belongs into ```text blocks. ```bash, ```shell, ```console and blocks without a word are refused: a
# command could hide there.
set -u
page=$1 source=$2 program=$3 scratch=$4
rm -rf "$scratch"
mkdir -p "$scratch/tree" "$scratch/blocks"

# Each block goes into a file named by its first line's number; a violation goes to `violations`.
awk -v out="$scratch/blocks" -v violations="$scratch/violations" -v quotes="$scratch/quotes" '
  function violation(line, text) { print "line " line ": " text > violations }
  inside && /^```[ \t]*$/ { inside = 0; next }
  inside == 1 { print > file; next }
  inside == 3 { if ($0 ~ /[^ ]/) print quoted "\t" NR "\t" $0 > quotes; next }
  inside { next }
  /^```/ {
    inside = 2
    word = substr($0, 4); gsub(/^[ \t]+|[ \t]+$/, "", word)
    if (word == "sh") { inside = 1; file = sprintf("%s/%05d", out, NR); printf "" > file }
    else if (word == "sh norun") {
      if (previous !~ /^<!-- norun: .*[^ ].* -->$/) violation(NR, "sh norun without <!-- norun: reason --> above it")
    }
    else if (word ~ /^(cpp|cmake)$/) {
      if (previous !~ /^<!-- from: [^ ]+ -->$/) violation(NR, "a quotation without <!-- from: FILE --> above it")
      else { inside = 3; quoted = previous; sub(/^<!-- from: /, "", quoted); sub(/ -->$/, "", quoted) }
    }
    else if (word ~ /^(sh |bash|shell|console|$)/)
      violation(NR, "a block marked \"" word "\"; commands are ```sh, what they print is ```text")
  }
  { previous = $0 }
  END { if (inside) violation(NR, "the last block is not closed") }
' "$page"
if [ -s "$scratch/violations" ]; then
  echo "$page: $(cat "$scratch/violations")"
  exit 1
fi

if [ -s "$scratch/quotes" ]; then
  while IFS=$'\t' read -r file line text; do
    grep -qxF -- "$text" "$source/$file" || { echo "$page: line $line is not in $file: $text"; exit 1; }
  done <"$scratch/quotes"
fi

# The tree as a newcomer has it: without what was built or run in it.
if files=$(git -C "$source" ls-files -z --cached --others --exclude-standard 2>"$scratch/git" | tr '\0' '\n') && [ -n "$files" ]; then
  (cd "$source" && printf '%s\n' "$files" | while IFS= read -r f; do [ -e "$f" ] && printf '%s\n' "$f"; done |
    tar -cf - -T -) | tar -xf - -C "$scratch/tree"
else
  (cd "$source" && tar -cf - --exclude='./build*' --exclude='./runs' --exclude='./out*' .) | tar -xf - -C "$scratch/tree"
fi

export PATH="$program:$PATH"
count=0
for block in "$scratch"/blocks/*; do
  [ -e "$block" ] || continue
  line=$((10#$(basename "$block")))
  echo "--- $page, line $line"
  if ! (cd "$scratch/tree" && bash -euo pipefail "$block" </dev/null); then
    echo "$page: the block at line $line failed"
    exit 1
  fi
  count=$((count + 1))
done
echo "$page: $count blocks ran"
rm -rf "$scratch"
