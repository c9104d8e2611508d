#!/bin/sh
# Reward, gold reward, diversity and divergence of objectives on digits, at equal reward queries, over seeds, in one report.
#   scripts/frontier.sh COSTATE OUT
# COSTATE is the program, OUT the folder for runs and the report. Two runs at a time, one thread each; about half an hour.
# SEEDS and SETTINGS (more options of costate run) in the environment change what is run.
set -eu
if [ $# -ne 2 ]; then sed -n 2,5p "$0"; exit 2; fi
costate=$1
out=$2
: "${SEEDS:=1 2 3}"
: "${SETTINGS:=}"
here=$(cd "$(dirname "$0")" && pwd)
export costate out here SETTINGS
mkdir -p "$out"
# Learning rates are each objective's own: a value such that the reward rises within the budget and the curve has points
# before its end.
for seed in $SEEDS; do
  echo "$seed adjoint_matching lr.peak=3e-4 loss_space=velocity"
  echo "$seed pi_ft lr.peak=3e-4 loss_space=velocity"
  echo "$seed relative_entropy lr.peak=1e-4"
  echo "$seed elegant lr.peak=1e-4"
  echo "$seed draft lr.peak=1e-5"
  echo "$seed ddpo_is lr.peak=3e-5"
  echo "$seed tdpo_r lr.peak=1e-5"
  echo "$seed hrf lr.peak=3e-5"
done | xargs -P 2 -L 1 sh -c '
  seed=$0 objective=$1
  shift
  run=$out/$objective-$seed
  [ -e "$run/evaluation.json" ] && exit 0
  for setting in "$@"; do set -- "$@" --set "finetune.$setting"; shift; done
  "$costate" run "$here/../examples/frontier/digits.json" --out "$run" --overwrite --quiet --threads 1 --seed "$seed" \
    --set "finetune.objective=$objective" --set "name=$objective" "$@" $SETTINGS >"$run.log" 2>&1 ||
    echo "$objective $seed: $(tail -n 1 "$run.log")"'
"$costate" compare $(find "$out" -mindepth 1 -maxdepth 1 -type d -name "*-[0-9]*" | sort) --out "$out/report" --overwrite
