#!/bin/bash
# Builds with counters of lines and branches (gcc, gcov), runs the suite, and prints what of the library was executed.
# The last line is 'lines N %, branches of parsers and of the writer of checkpoints N %'.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/coverage.sh [options]

  --all              also the tests that take long (CTest label `slow`)
  --build-dir DIR    where to build; default build/coverage
  --no-build         run what is built
  --help             this text

Prints lines and branches of every folder of the library, and of each file that parses or writes checkpoints. Branches that
only an exception of the standard library takes are not counted as branches.
TEXT
}

slow=(-LE '^slow$') dir=build/coverage built=""
while [ $# -gt 0 ]; do
  case $1 in
    --all) slow=() ;;
    --build-dir) [ $# -ge 2 ] || stop "$1 needs a value; see --help"; dir=$2; shift ;;
    --no-build) built=yes ;;
    --help) usage; exit 0 ;;
    *) stop "unknown option '$1'; see --help" ;;
  esac
  shift
done
if [ -z "$built" ]; then
  build "$dir" -DCMAKE_BUILD_TYPE=Debug -DCOSTATE_DEVELOPER=ON -DCOSTATE_CLI=ON -DCOSTATE_CUDA=OFF \
    -DCMAKE_CXX_FLAGS="--coverage -O2 -Wno-maybe-uninitialized" || stop "the build failed"
fi
find "$dir" -name '*.gcda' -delete
say "running the tests"
ctest --test-dir "$dir" --parallel "$(nproc)" "${slow[@]}" </dev/null | tail -n 3

# One JSON document a counter file.
say "reading the counters"
find "$dir" -name '*.gcda' -print0 | xargs -0 gcov --json-format --stdout --branch-probabilities 2>/dev/null |
  python3 scripts/coverage.py "$PWD"
