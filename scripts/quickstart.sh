#!/bin/bash
# Installs what is missing, builds the program, and fine-tunes a flow model on digits: pictures and a summary at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ $# -gt 0 ]; then
  [ "$1" = --help ] || stop "unknown option '$1'; this command has none but --help"
  cat <<'TEXT'
usage: scripts/quickstart.sh

Installs what is missing from Debian's packages, builds the costate program in build/quickstart, and runs

  costate run examples/digits.json --out runs/quickstart

which pretrains a flow model on digits, fine-tunes it toward a reward, samples and evaluates it. An earlier run in
runs/quickstart is moved aside to runs/quickstart.1, runs/quickstart.2, ...
TEXT
  exit 0
fi

need_packages $build_packages
build build/quickstart -DCMAKE_BUILD_TYPE=Release -DCOSTATE_DEVELOPER=OFF -DCOSTATE_CLI=ON

out=runs/quickstart
if [ -e $out ]; then
  n=1
  while [ -e $out.$n ]; do n=$((n + 1)); done
  mv $out $out.$n
  say "an earlier run was moved to $out.$n"
fi
mkdir -p runs

say "costate run examples/digits.json --out $out"
begin=$SECONDS
build/quickstart/cli/costate run examples/digits.json --out $out
say "done in $((SECONDS - begin)) s; everything is in $out:"
find $out \( -name '*.png' -o -name 'summary*' \) -type f | sort | sed 's/^/   /'
