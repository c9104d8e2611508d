#!/bin/bash
# Kills trainings, many times, at random moments and within every call that changes the disk, and compares what they come to
# with runs that were never stopped. The last line is 'N kills, N points, N failures'.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/crash_test.sh [options]

Builds Costate and runs the tests of tests/crash at length, for every objective among them:

  SIGKILL at random moments of its processor time, going on by --resume auto, until the run is done, and again;
  death within every n-th call that changes the disk, of the process alone and of the machine, which loses what was not flushed;
  ENOSPC and EIO in every n-th such call, once and from then on;
  SIGINT and SIGTERM, once and twice.

After each the states that are there must be whole, and the run must come to the bytes of one that was never stopped.

  --kills N          random kills, all objectives together; default 1000
  --every N          one call in so many is a point of death or of an error; default 1, every one (hours); 10 takes minutes
  --objective NAME   of this one alone
  --build-dir DIR    where to build; default build/release
  --no-build         run what is built
  --help             this text
TEXT
}

kills=1000 every=1 objective="*" dir=build/release built=""
while [ $# -gt 0 ]; do
  case $1 in
    --kills | --every | --objective | --build-dir)
      [ $# -ge 2 ] || stop "$1 needs a value; see --help"
      case $1 in --kills) kills=$2 ;; --every) every=$2 ;; --objective) objective=$2 ;; *) dir=$2 ;; esac
      shift ;;
    --no-build) built=yes ;;
    --help) usage; exit 0 ;;
    *) stop "unknown option '$1'; see --help" ;;
  esac
  shift
done
for n in "$kills" "$every"; do [[ $n =~ ^[1-9][0-9]*$ ]] || stop "'$n' is not a whole number above 0; see --help"; done
if [ -z "$built" ]; then
  build "$dir" -DCMAKE_BUILD_TYPE=Release -DCOSTATE_DEVELOPER=ON -DCOSTATE_CLI=ON >/dev/null || stop "the build failed"
fi
log=$dir/crash_test.log
COSTATE_CRASH_KILLS=$kills COSTATE_CRASH_POINTS=$every \
  "$dir/tests/test_crash" --gtest_filter="*/Crash.*/$objective:Resume.*" </dev/null 2>&1 | tee "$log"
killed=$(sed -n 's/.*: \([0-9]*\) kills, .*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
points=$(sed -n 's/.*: \([0-9]*\) \(points of\|failing calls\).*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
failures=$(grep -c '^\[  FAILED  \].*ms)$' "$log")
echo "$killed kills, $points points, $failures failures"
[ "$failures" -eq 0 ] && grep -q '^\[  PASSED  \]' "$log"
