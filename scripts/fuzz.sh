#!/bin/bash
# Builds the fuzzers, runs each for a time or a number of executions, and keeps count of all that were ever made in
# tests/fuzz/ledger.csv. The last line is 'N executions, N findings'.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/fuzz.sh [options] [PARSER...]

Builds the fuzzers of tests/fuzz with clang++, libFuzzer and the address and undefined-behaviour sanitizers, and runs those named,
or all, one after the other, each from its corpus in tests/fuzz/corpus and from what earlier runs found on the way. An input that
took too long (5 s), too much memory (512 MB) or went wrong is a finding; it stays in BUILD/findings/PARSER. Those that are fixed
belong into the corpus as found-*. Every run of a parser adds a line to tests/fuzz/ledger.csv: the day, the revision, the
executions, the seconds, the edges reached and the findings; a run that is interrupted does not count.

  --seconds N        of each parser; default 60
  --runs N           executions of each parser at most; default no limit
  --until N          leave out parsers whose executions in the ledger add up to N, and stop the others there
  --thorough         look at the values that are compared as well: half as many executions, deeper ones
  --max-len N        bytes of an input at most; default 4096. Short inputs are many more a second
  --jobs N           parsers at once; default 1
  --ledger           print what the ledger adds up to, and do nothing else
  --build-dir DIR    where to build; default build/fuzz
  --no-build         run what is built
  --help             this text
TEXT
}

seconds=60 runs=-1 until=0 length=4096 jobs=1 dir=build/fuzz built="" deep=0 show="" chosen=()
ledger=tests/fuzz/ledger.csv
while [ $# -gt 0 ]; do
  case $1 in
    --seconds | --runs | --until | --max-len | --jobs | --build-dir)
      [ $# -ge 2 ] || stop "$1 needs a value; see --help"
      case $1 in --seconds) seconds=$2 ;; --runs) runs=$2 ;; --until) until=$2 ;; --max-len) length=$2 ;; --jobs) jobs=$2 ;; *) dir=$2 ;; esac
      shift ;;
    --no-build) built=yes ;;
    --thorough) deep=1 ;;
    --ledger) show=yes ;;
    --help) usage; exit 0 ;;
    -*) stop "unknown option '$1'; see --help" ;;
    *) [ -d "tests/fuzz/corpus/$1" ] || stop "'$1' is not a parser; they are $(ls tests/fuzz/corpus | tr '\n' ' ')"
      chosen+=("$1") ;;
  esac
  shift
done
for n in "$seconds" "$jobs" "$until" "$length" "${runs#-}"; do [[ $n =~ ^[0-9]+$ ]] || stop "'$n' is not a whole number; see --help"; done
[ ${#chosen[@]} -gt 0 ] || mapfile -t chosen < <(ls tests/fuzz/corpus)

# Executions of a parser so far, without a finding since.
so_far() { awk -F, -v parser="$1" 'NR > 1 && $3 == parser { n += $4 } END { printf "%d", n }' "$ledger" 2>/dev/null || echo 0; }
[ -s "$ledger" ] || echo "day,revision,parser,executions,seconds,edges,findings" >"$ledger"
if [ -n "$show" ]; then
  awk -F, 'NR > 1 { n[$3] += $4; s[$3] += $5; f[$3] += $7; all += $4; found += $7 }
    END { for (p in n) printf "%-12s %14d executions %10d s %4d findings\n", p, n[p], s[p], f[p] | "sort"
          close("sort"); printf "%d executions, %d findings\n", all, found }' "$ledger"
  exit 0
fi
if [ "$until" -gt 0 ]; then
  left=()
  for parser in "${chosen[@]}"; do [ "$(so_far "$parser")" -ge "$until" ] || left+=("$parser"); done
  [ ${#left[@]} -gt 0 ] || { say "every one of them has $until executions"; echo "0 executions, 0 findings"; exit 0; }
  chosen=("${left[@]}")
fi

if [ -z "$built" ]; then
  command -v clang++ >/dev/null || stop "clang++ is missing: libFuzzer comes with Clang (apt-get install clang)"
  say "configuring $dir"
  cmake -S . -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++ -DCOSTATE_FUZZ=ON </dev/null >/dev/null ||
    stop "cmake failed"
  say "building"
  cmake --build "$dir" --parallel "$(nproc)" --target "${chosen[@]/#/fuzz_}" </dev/null || stop "the build failed"
fi

# One parser: its log, its growing corpus, its findings.
fuzz() {
  local parser=$1 most=$runs
  if [ "$until" -gt 0 ]; then
    local missing=$((until - $(so_far "$parser")))
    [ "$most" -ge 0 ] && [ "$most" -lt "$missing" ] || most=$missing
  fi
  mkdir -p "$dir/corpus/$parser" "$dir/findings/$parser"
  "$dir/tests/fuzz/target/fuzz_$parser" -max_total_time="$seconds" -runs="$most" -timeout=5 -rss_limit_mb=512 -max_len="$length" \
    -print_final_stats=1 -use_value_profile="$deep" -artifact_prefix="$dir/findings/$parser/" "$dir/corpus/$parser" \
    "tests/fuzz/corpus/$parser" >"$dir/fuzz_$parser.log" 2>&1 </dev/null
  echo $? >"$dir/fuzz_$parser.status"
}
# Freed memory that the sanitizer keeps, 256 MB by default, would count towards the limit of 512.
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=64
say "running ${#chosen[@]} fuzzers, $seconds s each"
for parser in "${chosen[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  fuzz "$parser" &
done
wait

total=0 findings=0
printf '%-12s %12s %8s %10s %10s %8s\n' parser executions '/s' edges inputs result
for parser in "${chosen[@]}"; do
  log=$dir/fuzz_$parser.log
  stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  result=clean
  found=0
  [ "$(cat "$dir/fuzz_$parser.status")" -eq 0 ] || { result=FINDING; found=1; findings=$((findings + 1)); }
  executed=$(stat number_of_executed_units)
  took=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log" | tail -n 1)
  echo "$(date -u +%F),$(git rev-parse --short HEAD 2>/dev/null || echo unknown),$parser,${executed:-0},${took:-0},${edges:-0},$found" >>"$ledger"
  total=$((total + ${executed:-0}))
  printf '%-12s %12s %8s %10s %10s %8s\n' "$parser" "${executed:-?}" "$(stat average_exec_per_sec)" "${edges:-?}" \
    "$(ls "$dir/corpus/$parser" | wc -l)" "$result"
  [ $result = clean ] || grep -m 3 -E 'ERROR|SUMMARY|what\(\)|runtime error' "$log" | sed 's/^/    /'
done
echo "$total executions, $findings findings"
[ "$findings" -eq 0 ]
