"""Adds up the counters that gcov prints as JSON, one document a line: python3 coverage.py ROOT < documents"""
import collections
import json
import os
import sys

FOLDERS = ("tensor", "autograd", "nn", "sde", "finetune")
NARROW = ("tensor/safetensors.cpp", "tensor/safetensors_header.cpp", "tensor/safetensors_set.cpp", "tensor/folder.cpp",
          "tensor/file.cpp", "tensor/descriptor.cpp", "tensor/checksum.cpp", "tensor/utf8.cpp", "finetune/data/csv.cpp",
          "finetune/data/idx.cpp", "finetune/data/npy.cpp", "finetune/data/elements.cpp", "finetune/training_state.cpp",
          "cli/config/json.cpp", "cli/config/read.cpp", "cli/gzip.cpp", "cli/inflate.h", "cli/npz.cpp", "cli/bytes.cpp",
          "cli/image/png.cpp", "cli/pretrained/state.cpp", "cli/run/saved_training.cpp", "cli/stages/resume.cpp")

root = os.path.realpath(sys.argv[1])
lines = collections.defaultdict(lambda: collections.defaultdict(int))     # file -> line -> executions
branches = collections.defaultdict(lambda: collections.defaultdict(int))  # file -> (line, index) -> times taken
for document in sys.stdin:
    document = document.strip()
    if not document:
        continue
    unit = json.loads(document)
    for file in unit["files"]:
        path = os.path.relpath(os.path.realpath(os.path.join(unit["current_working_directory"], file["file"])), root)
        if path.startswith("..") or path.split("/")[0] not in FOLDERS + ("cli",):
            continue
        for line in file["lines"]:
            lines[path][line["line_number"]] += line["count"]
            for index, branch in enumerate(line["branches"]):
                if not branch["throw"]:
                    branches[path][line["line_number"], index] += branch["count"]


def shares(paths):
    def share(table):
        counts = [n for p in paths for n in table[p].values()]
        return sum(n > 0 for n in counts), len(counts)
    return share(lines), share(branches)


def row(name, paths):
    (executed, of_lines), (taken, of_branches) = shares(paths)
    percent = lambda a, b: "%5.1f %%" % (100 * a / b) if b else "    -  "
    print("%-36s lines %s of %6d   branches %s of %6d" % (name, percent(executed, of_lines), of_lines,
                                                         percent(taken, of_branches), of_branches))


everything = list(lines)
for folder in FOLDERS + ("cli",):
    row(folder, [p for p in everything if p.startswith(folder + "/")])
print()
for path in NARROW:
    if path in lines:
        row(path, [path])
core = [p for p in everything if p.split("/")[0] in FOLDERS]
(executed, of_lines), _ = shares(core)
_, (taken, of_branches) = shares([p for p in NARROW if p in lines])
print("\nlines %.1f %%, branches of parsers and of the writer of checkpoints %.1f %%"
      % (100 * executed / max(of_lines, 1), 100 * taken / max(of_branches, 1)))
