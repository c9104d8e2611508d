#!/bin/bash
# Builds the CUDA backend and checks it on cuda:0: tests, sanitizers, measurements. The last lines are a table of the stages.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

usage() {
  cat <<'TEXT'
usage: scripts/gpu_check.sh [options]

Builds the CUDA backend, runs its tests on cuda:0 and measures. Ends with a table of the stages and 'N passed, N failed'.

  --build-dir DIR    where to build; default build/gpu
  --out DIR          where logs and results go; default bench/results/gpu
  --budget SECONDS   for everything together; default 480
  --emulated         on the emulator instead of a device: checks the script itself
  --built            what lies in the build folder as it is: for a machine with a device and without the tools to build
  --help             this text

COSTATE_CUDA_ARCHITECTURES chooses the architectures; default native.
TEXT
}

dir=build/gpu out=bench/results/gpu budget=480 emulated=0 built=0
while [ $# -gt 0 ]; do
  case $1 in
    --build-dir | --out | --budget)
      [ $# -ge 2 ] || stop "$1 needs a value; see --help"
      case $1 in --build-dir) dir=$2 ;; --out) out=$2 ;; --budget) budget=$2 ;; esac
      shift ;;
    --emulated) emulated=1 ;;
    --built) built=1 ;;
    --help) usage; exit 0 ;;
    *) stop "unknown option '$1'; see --help" ;;
  esac
  shift
done
mkdir -p "$out" || stop "the folder $out could not be made"
begin=$SECONDS passed=0 failed=0 table=()

# stage NAME LIMIT COMMAND...: one line of the table; the output goes to OUT/NAME.log. Skipped when the budget is used up.
stage() {
  local name=$1 limit=$2 left=$((budget - (SECONDS - begin))) start=$SECONDS status
  shift 2
  if [ "$left" -lt 10 ]; then
    table+=("$(printf '%-14s skipped: no time left' "$name")")
    return 1
  fi
  [ "$limit" -gt "$left" ] && limit=$left
  timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1 </dev/null
  status=$?
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
    table+=("$(printf '%-14s passed  %4d s' "$name" $((SECONDS - start)))")
    return 0
  fi
  failed=$((failed + 1))
  table+=("$(printf '%-14s FAILED  %4d s, exit status %d' "$name" $((SECONDS - start)) $status)")
  tail -n 20 "$out/$name.log"
  return 1
}
finish() {
  say "stages"
  printf '%s\n' "${table[@]}"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

cuda=ON architectures=${COSTATE_CUDA_ARCHITECTURES:-native}
if [ $emulated -eq 1 ]; then cuda=OFF; else stage driver 20 nvidia-smi || finish; fi
targets=(test_cuda costate-cli bench_adjoint_matching)
[ $emulated -eq 1 ] || targets+=(costate_cuda)
if [ $built -eq 0 ]; then
  stage configure 60 cmake -S . -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCOSTATE_CUDA=$cuda \
    -DCOSTATE_CUDA_ARCHITECTURES="$architectures" || finish
  stage build 300 cmake --build "$dir" --parallel "$(nproc)" --target "${targets[@]}" || finish
fi

if [ $emulated -eq 1 ]; then
  export COSTATE_CUDA_PLUGIN=$PWD/$dir/cuda/emulator/libcostate_cuda_emulated.so
  case $dir in /*) export COSTATE_CUDA_PLUGIN=$dir/cuda/emulator/libcostate_cuda_emulated.so ;; esac
else
  export COSTATE_DEVICE=cuda:0
fi
stage doctor 30 "$dir/cli/costate" doctor
[ -f "$out/doctor.log" ] && cat "$out/doctor.log"
stage tests 120 "$dir/tests/test_cuda"
# The same bits, run after run: the tests of training compare two runs of a process; here they are run again.
stage again 60 "$dir/tests/test_cuda" --gtest_filter='CudaTraining.*:CudaRecordedTraining.*' \
  --gtest_repeat=$((emulated ? 2 : 10))
if [ $emulated -eq 0 ] && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    stage $tool 90 compute-sanitizer --tool $tool --error-exitcode 9 "$dir/tests/test_cuda" \
      --gtest_filter='CudaKernels.*:CudaAttention.*-*EveryVariant*:*Convolutions'
  done
fi
iterations=30 shapes=("64 256" "256 256" "512 1024")  # width of the hidden layers, batch
[ $emulated -eq 1 ] && iterations=1 shapes=("8 4")
for shape in "${shapes[@]}"; do
  read -r hidden batch <<<"$shape"
  stage "mlp-$hidden-$batch" 60 "$dir/bench/bench_adjoint_matching" --device cuda:0 --hidden "$hidden" --batch "$batch" \
    --iterations $iterations --steps $((emulated ? 4 : 40)) --loss-steps $((emulated ? 2 : 20))
  # The same with recorded iterations.
  stage "graph-$hidden-$batch" 60 "$dir/bench/bench_adjoint_matching" --device cuda:0 --hidden "$hidden" --batch "$batch" \
    --iterations $iterations --steps $((emulated ? 4 : 40)) --loss-steps $((emulated ? 2 : 20)) --graphs
  for log in mlp graph; do
    [ -f "$out/$log-$hidden-$batch.log" ] && cat "$out/$log-$hidden-$batch.log"
  done
done
finish
