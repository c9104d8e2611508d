#!/bin/bash
# Two processes on two cores against one process pinned to one core, on the UNet of examples/glyphs_unet.json: what
# docs/scaling.md reports. The two take turns, so that other work on the machine meets both.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

build=${1:-build} rounds=${2:-3}
program=$PWD/$build/cli/costate
[ -x "$program" ] || stop "$program does not exist; usage: scripts/scaling.sh [BUILD_FOLDER [ROUNDS]]"
command -v mpirun >/dev/null || stop "mpirun was not found"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
settings=(--quiet --overwrite --threads 1 --set pretrain.iterations=12 --set pretrain.log_every=1 --set pretrain.lr.warmup=1
          --set pretrain.micro_batch=16 --set finetune.iterations=4 --set finetune.log_every=1 --set finetune.micro_batch=8
          --set finetune.lr.warmup=1 --set classifiers.reward.iterations=20 --set classifiers.judge.iterations=20
          --set data.count=2000)
# As mpirun refuses to be root by itself; on one machine messages are copied in memory.
ranks=(mpirun --bind-to none --mca btl_vader_single_copy_mechanism none)
[ "$(id -u)" -eq 0 ] && ranks+=(--allow-run-as-root)

# seconds STAGE RUN: from the first row of the stage to its last.
seconds() { awk -F, -v stage="$1" '$1 == stage { if (!n++) first = $3; last = $3 } END { print last - first }' "$2/timing.csv"; }

one() { taskset -c 0 "$program" "$1" examples/glyphs_unet.json --out "$folder/one" "${settings[@]}" >/dev/null; }
two() {
  "${ranks[@]}" -np 1 taskset -c 0 "$program" "$1" examples/glyphs_unet.json --out "$folder/two" "${settings[@]}" : \
                -np 1 taskset -c 1 "$program" "$1" examples/glyphs_unet.json --out "$folder/two" "${settings[@]}" >/dev/null
}
say "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
printf '%-9s %12s %12s %7s\n' stage 'one, s' 'two, s' ratio
for ((round = 0; round < rounds; ++round)); do
  for stage in pretrain finetune; do
    one $stage
    two $stage
    a=$(seconds $stage "$folder/one") b=$(seconds $stage "$folder/two")
    awk -v s=$stage -v a="$a" -v b="$b" 'BEGIN { printf "%-9s %12.2f %12.2f %7.2f\n", s, a, b, a / b }'
    cmp "$folder/one/metrics.csv" "$folder/two/metrics.csv" || stop "the metrics of $stage differ"
  done
done
cmp "$folder/one/checkpoints/tuned.safetensors" "$folder/two/checkpoints/tuned.safetensors" && say "the same bits"
grep -E '"(pretrain|finetune)": \{|"sent_bytes"' "$folder/two/run.json" | tr -d ' {\n' && echo
say "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
