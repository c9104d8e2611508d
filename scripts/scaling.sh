#!/bin/bash
# Two processes pinned to a core each against one process pinned to one core, on the UNet of examples/glyphs_unet.json: what
# docs/scaling.md reports. The two take turns, so that other work on the machine meets both; the ratio of a stage is that of the
# shortest times. On a machine that is busy with something else it says so, and its numbers mean little.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

build=${1:-build} rounds=${2:-3}
case $build in /*) ;; *) build=$PWD/$build ;; esac
program=$build/cli/costate
[ -x "$program" ] || stop "$program does not exist; usage: scripts/scaling.sh [BUILD_FOLDER [ROUNDS]]"
command -v mpirun >/dev/null || stop "mpirun was not found"
[ "$(nproc)" -ge 2 ] || stop "one processor: two processes have nothing to share"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
settings=(--quiet --overwrite --threads 1 --set pretrain.iterations=12 --set pretrain.log_every=1 --set pretrain.lr.warmup=1
          --set pretrain.micro_batch=16 --set finetune.iterations=4 --set finetune.log_every=1 --set finetune.micro_batch=8
          --set finetune.lr.warmup=1 --set classifiers.reward.iterations=20 --set classifiers.judge.iterations=20
          --set data.count=2000)
# As mpirun refuses to be root by itself; on one machine messages are copied in memory.
ranks=(mpirun --bind-to none --oversubscribe --mca btl_vader_single_copy_mechanism none)
[ "$(id -u)" -eq 0 ] && ranks+=(--allow-run-as-root)

load() { cut -d' ' -f1-3 /proc/loadavg; }
# seconds STAGE RUN: from the first row of the stage to its last.
seconds() { awk -F, -v stage="$1" '$1 == stage { if (!n++) first = $3; last = $3 } END { print last - first }' "$2/timing.csv"; }

one() { taskset -c 0 "$program" "$1" examples/glyphs_unet.json --out "$folder/one" "${settings[@]}" >/dev/null; }
two() {
  "${ranks[@]}" -np 1 taskset -c 0 "$program" "$1" examples/glyphs_unet.json --out "$folder/two" "${settings[@]}" : \
                -np 1 taskset -c 1 "$program" "$1" examples/glyphs_unet.json --out "$folder/two" "${settings[@]}" >/dev/null
}
say "load before: $(load)"
awk '{ exit !($1 > 0.5) }' /proc/loadavg && say "the machine is busy: these are no measurements"
printf '%-9s %12s %12s %7s %9s\n' stage 'one, s' 'two, s' ratio load
for ((round = 0; round < rounds; ++round)); do
  for stage in pretrain finetune; do
    one $stage
    two $stage
    a=$(seconds $stage "$folder/one") b=$(seconds $stage "$folder/two")
    echo "$stage $a $b" >>"$folder/times"
    awk -v s=$stage -v a="$a" -v b="$b" '{ printf "%-9s %12.2f %12.2f %7.2f %9s\n", s, a, b, a / b, $1 }' /proc/loadavg
    cmp "$folder/one/metrics.csv" "$folder/two/metrics.csv" || stop "the metrics of $stage differ"
  done
done
cmp "$folder/one/checkpoints/tuned.safetensors" "$folder/two/checkpoints/tuned.safetensors" && say "the same bits"
awk '{ if (!n[$1]++ || $2 < one[$1]) one[$1] = $2; if (n[$1] == 1 || $3 < two[$1]) two[$1] = $3 }
     END { for (s in n) printf "ratio of the shortest times, %s: %.2f\n", s, one[s] / two[s] }' "$folder/times"
awk '/^    "[a-z]+": \{/ { stage = $1 }
     /"sent_bytes"/ && stage ~ /pretrain|finetune/ { print "bytes that rank 0 sent, " stage " " $2 }' "$folder/two/run.json"
say "load after: $(load)"
