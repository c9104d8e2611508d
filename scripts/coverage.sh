#!/bin/bash
# Builds with Clang's counters of lines and branches, runs the suite, and prints what of the library was executed.
# The last line is 'lines N %, branches of parsers and of the writer of checkpoints N %'.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/coverage.sh [options]

  --all              also the tests that take long (CTest label `slow`)
  --sanitize LIST    with sanitizers as well, for instance address,undefined
  --build-dir DIR    where to build; default build/coverage
  --no-build         run what is built
  --no-run           read the counters of the last run
  --untaken          print every branch of those files that was never taken, too
  --help             this text

Prints lines and branches of every folder of the library, and of each file that parses or writes checkpoints. A branch is a
condition of the source that was true, or one that was false; what the standard library does inside is none.
TEXT
}

slow=(-LE '^slow$') dir=build/coverage sanitize="" built="" ran="" untaken=""
while [ $# -gt 0 ]; do
  case $1 in
    --all) slow=() ;;
    --sanitize | --build-dir)
      [ $# -ge 2 ] || stop "$1 needs a value; see --help"
      if [ "$1" = --sanitize ]; then sanitize=$2; else dir=$2; fi
      shift ;;
    --no-build) built=yes ;;
    --no-run) built=yes ran=yes ;;
    --untaken) untaken=--untaken ;;
    --help) usage; exit 0 ;;
    *) stop "unknown option '$1'; see --help" ;;
  esac
  shift
done
for tool in clang++ llvm-profdata llvm-cov; do
  command -v $tool >/dev/null || stop "$tool is missing: the counters are Clang's (apt-get install clang llvm)"
done
if [ -z "$built" ]; then
  build "$dir" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=clang++ -DCOSTATE_DEVELOPER=ON -DCOSTATE_CLI=ON -DCOSTATE_CUDA=OFF \
    -DCOSTATE_SANITIZE="$sanitize" -DCMAKE_CXX_FLAGS_DEBUG="-O1 -gline-tables-only -fprofile-instr-generate -fcoverage-mapping" ||
    stop "the build failed"
fi
dir=$(cd "$dir" && pwd)
if [ -z "$ran" ]; then
  rm -rf "$dir/profiles"
  say "running the tests"
  LLVM_PROFILE_FILE=$dir/profiles/%4m.profraw ctest --test-dir "$dir" --parallel "$(nproc)" --output-on-failure "${slow[@]}" </dev/null
fi

say "reading the counters"
llvm-profdata merge -sparse -o "$dir/suite.profdata" "$dir"/profiles/*.profraw || stop "the counters could not be added up"
objects=()
while IFS= read -r program; do objects+=(-object "$program"); done < <(find "$dir" -type f -executable \( -name 'test_*' -o -name costate \))
llvm-cov export -instr-profile="$dir/suite.profdata" "${objects[@]:1}" 2>"$dir/llvm-cov.log" | python3 scripts/coverage.py $untaken "$PWD"
