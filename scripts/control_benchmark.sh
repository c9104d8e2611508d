#!/bin/sh
# The stochastic-control benchmark: every loss on every problem, over seeds, and the table and curves of control errors.
#   scripts/control_benchmark.sh COSTATE OUT
# COSTATE is the program, OUT the folder for runs and reports. Two runs at a time, one thread each; about an hour.
# PROBLEMS, OBJECTIVES, SEEDS and SETTINGS (more options of costate run) in the environment change what is run.
set -eu
if [ $# -ne 2 ]; then sed -n 2,5p "$0"; exit 2; fi
costate=$1
out=$2
: "${PROBLEMS:=quadratic_ou_easy quadratic_ou_hard linear_ou double_well}"
: "${OBJECTIVES:=adjoint_matching discrete_adjoint continuous_adjoint socm socm_constant socm_adjoint relative_entropy \
cross_entropy log_variance variance moment reinforce}"
: "${SEEDS:=1 2 3}"
: "${SETTINGS:=--set finetune.iterations=300 --set finetune.batch=64}"
here=$(cd "$(dirname "$0")" && pwd)
export costate out here SETTINGS
mkdir -p "$out"
for seed in $SEEDS; do
  for problem in $PROBLEMS; do
    for objective in $OBJECTIVES; do
      echo "$problem $objective $seed"
    done
  done
done | xargs -P 2 -L 1 sh -c '
  run=$out/$0/$1-$2
  [ -e "$run/evaluation.json" ] && exit 0
  mkdir -p "$out/$0"
  "$costate" run "$here/../examples/control/$0.json" --out "$run" --overwrite --quiet --threads 1 --seed "$2" \
    --set "finetune.objective=$1" --set "name=$1" $SETTINGS >"$run.log" 2>&1 || echo "$0 $1 $2: $(tail -n 1 "$run.log")"'
for problem in $PROBLEMS; do
  "$costate" compare $(find "$out/$problem" -mindepth 1 -maxdepth 1 -type d -name "*-[0-9]*" | sort) \
    --out "$out/$problem/report" --overwrite
done
