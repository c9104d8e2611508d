#!/bin/bash
# The reference of the C++ interface: check_api.sh SOURCE_DIR SCRATCH. The filter of comments must give what
# tests/docs/api/marked.txt holds, Doxygen must not warn, and what each public header opens with must be on the header's page.
set -euo pipefail
source=$1 scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$source"

awk -f docs/api/comments.awk tests/docs/api/plain.h | diff - tests/docs/api/marked.txt ||
  { echo "docs/api/comments.awk: found the lines marked <, expected those marked >"; exit 1; }

if ! command -v doxygen >/dev/null; then
  echo "docs.api: skipped, as there is no doxygen here (Debian's package doxygen)"
  exit 77
fi
{ cat docs/api/Doxyfile; echo "OUTPUT_DIRECTORY = \"$scratch\""; } | doxygen - || { echo "docs.api: Doxygen warned"; exit 1; }

opened=$(find tensor autograd nn sde finetune -name '*.h' -not -path 'tensor/cpu/*' -exec head -qn 1 {} + | grep -c '^// ')
shown=$(grep -l 'Detailed Description' "$scratch"/html/*_8h.html | wc -l)
[ "$opened" -gt 100 ] && [ "$opened" -eq "$shown" ] ||
  { echo "docs.api: $opened headers open with a comment, expected as many pages with a description, found $shown"; exit 1; }
for sentence in 'What every objective optimises' 'Every differentiable operation' 'The tuned law is the tilted one'; do
  grep -rq "$sentence" "$scratch/html" || { echo "docs.api: nowhere in the pages: $sentence"; exit 1; }
done
echo "docs.api: $shown headers"
rm -rf "$scratch"
