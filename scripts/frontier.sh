#!/bin/sh
# Reward, gold reward, diversity and divergence of objectives on digits, at equal reward queries, over seeds, in one report.
#   scripts/frontier.sh COSTATE OUT
# COSTATE is the program, OUT the folder for runs and the report. Each seed has one base model. Two runs at a time, one thread
# each; about half an hour. What is there already is not run again. In the environment:
#   CONFIG    examples/frontier/digits.json (8 x 8) or another, such as digits28.json (28 x 28, a UNet)
#   SEEDS     1 2 3
#   ONLY      names of objectives; all
#   SETTINGS  more options of costate
set -eu
if [ $# -ne 2 ]; then sed -n 2,9p "$0"; exit 2; fi
costate=$1
out=$2
here=$(cd "$(dirname "$0")" && pwd)
: "${CONFIG:=$here/../examples/frontier/digits.json}"
: "${SEEDS:=1 2 3}"
: "${ONLY:=adjoint_matching pi_ft relative_entropy elegant draft ddpo_is tdpo_r hrf}"
: "${SETTINGS:=}"
export costate out CONFIG SETTINGS
mkdir -p "$out"
for seed in $SEEDS; do
  [ -e "$out/base-$seed.done" ] && continue
  "$costate" pretrain "$CONFIG" --out "$out/base-$seed" --overwrite --quiet --seed "$seed" $SETTINGS
  touch "$out/base-$seed.done"
done
# Learning rates are each objective's own: a value such that the reward rises within the budget and the curve has points
# before its end.
settings() {
  case $1 in
    adjoint_matching | pi_ft) echo lr.peak=3e-4 loss_space=velocity ;;
    relative_entropy | elegant) echo lr.peak=1e-4 ;;
    ddpo_is | hrf) echo lr.peak=3e-5 ;;
    draft | tdpo_r) echo lr.peak=1e-5 ;;
    *) echo "no learning rate for $1" >&2; exit 2 ;;
  esac
}
for seed in $SEEDS; do
  for objective in $ONLY; do
    echo "$seed" "$objective" $(settings "$objective")
  done
done | xargs -P 2 -L 1 sh -c '
  seed=$0 objective=$1
  shift
  run=$out/$objective-$seed
  [ -e "$run/evaluation.json" ] && exit 0
  rm -rf "$run"
  cp -r "$out/base-$seed" "$run"
  for setting in "$@"; do set -- "$@" --set "finetune.$setting"; shift; done
  set -- "$CONFIG" --out "$run" --quiet --threads 1 --seed "$seed" --set "finetune.objective=$objective" \
    --set "name=$objective" "$@" $SETTINGS
  { "$costate" finetune "$@" && "$costate" sample "$@" && "$costate" evaluate "$@"; } >"$run.log" 2>&1 ||
    echo "$objective $seed: $(tail -n 1 "$run.log")"'
"$costate" compare $(find "$out" -mindepth 1 -maxdepth 1 -type d -name "*-[0-9]*" ! -name "base-*" | sort) \
  --out "$out/report" --overwrite
