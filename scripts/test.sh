#!/bin/bash
# Installs what is missing, builds everything and runs the suite. The last line is 'N passed, N failed'.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [options]

Installs what is missing from Debian's packages, builds Costate with all its programs, and runs the tests.

  --all              also the tests that take long (CTest label `slow`)
  --sanitize LIST    with sanitizers: address,undefined or thread
  --build-dir DIR    where to build; default build/test, with sanitizers build/test-LIST
  --help             this text

CXX chooses the compiler. The last line reads 'N passed, N failed', with ', N skipped' behind it when some were skipped;
the exit code is 0 when nothing failed.
TEXT
}

slow=(-LE '^slow$') sanitize="" dir=""
while [ $# -gt 0 ]; do
  case $1 in
    --all) slow=() ;;
    --sanitize | --build-dir)
      [ $# -ge 2 ] || stop "$1 needs a value; see --help"
      if [ "$1" = --sanitize ]; then sanitize=$2; else dir=$2; fi
      shift ;;
    --help) usage; exit 0 ;;
    *) stop "unknown option '$1'; see --help" ;;
  esac
  shift
done
type=Release
[ -n "$sanitize" ] && type=RelWithDebInfo
[ -n "$dir" ] || dir=build/test${sanitize:+-${sanitize//,/-}}

# A step that fails before there is anything to count is one failure.
give_up() { say "$1"; echo "0 passed, 1 failed"; exit 1; }

(need_packages $build_packages $test_packages) || give_up "the packages could not be installed"
build "$dir" -DCMAKE_BUILD_TYPE=$type -DCOSTATE_DEVELOPER=ON -DCOSTATE_CLI=ON -DCOSTATE_SANITIZE="$sanitize" ||
  give_up "the build failed"

say "running the tests"
export UBSAN_OPTIONS=print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
report=$PWD/$dir/test-report.xml
case $dir in /*) report=$dir/test-report.xml ;; esac
rm -f "$report"
ctest --test-dir "$dir" --parallel "$(nproc)" --output-on-failure --no-tests=error "${slow[@]}" --output-junit "$report" </dev/null
status=$?
[ -s "$report" ] || give_up "ctest wrote no report"

# <testsuite tests="N" failures="N" disabled="N" skipped="N" ...>
count() { sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p; s/.*<testsuite[^>]* $1=\"\([0-9]*\)\".*/\1/p" "$report" | head -n 1; }
failed=$(count failures) skipped=$(($(count skipped) + $(count disabled)))
passed=$(($(count tests) - failed - skipped))
[ $status -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
line="$passed passed, $failed failed"
[ $skipped -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
