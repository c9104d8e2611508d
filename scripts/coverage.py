"""Adds up what `llvm-cov export` prints: python3 coverage.py [--untaken] ROOT < export.json"""
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

show_untaken = sys.argv[1] == "--untaken"
root = os.path.realpath(sys.argv[-1])
lines = collections.defaultdict(lambda: collections.defaultdict(int))     # file -> line -> executions
branches = collections.defaultdict(lambda: collections.defaultdict(int))  # file -> (line, column, outcome) -> times taken


def inside(name):
    path = os.path.relpath(os.path.realpath(name), root)
    return path if path.split("/")[0] in FOLDERS + ("cli",) else None


def add_lines(counts, segments):
    """A line is executed as often as the region that it continues, or as one that begins on it, whichever is more."""
    before = None  # the segment that holds at the beginning of the line
    at = 0
    for line in range(segments[0][0], segments[-1][0] + 1) if segments else ():
        found = [before[2]] if before and before[3] else []
        while at < len(segments) and segments[at][0] == line:
            _, _, count, has_count, is_entry, is_gap = segments[at]
            if has_count and is_entry and not is_gap:
                found.append(count)
            before = segments[at]
            at += 1
        if found:
            counts[line] += max(found)


for unit in json.load(sys.stdin)["data"]:
    for file in unit["files"]:
        if path := inside(file["filename"]):
            add_lines(lines[path], file["segments"])
    for function in unit["functions"]:  # instantiations of a template add up
        files = [inside(name) for name in function["filenames"]]
        for line, column, _, _, taken, not_taken, file, *_ in function.get("branches", []):
            if files[file]:
                branches[files[file]][line, column, True] += taken
                branches[files[file]][line, column, False] += not_taken


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
if show_untaken:
    print()
    for path in NARROW:
        for (line, column, outcome), count in sorted(branches[path].items()):
            if count == 0:
                print("%s:%d:%d is never %s" % (path, line, column, str(outcome).lower()))
core = [p for p in everything if p.split("/")[0] in FOLDERS]
(executed, of_lines), _ = shares(core)
_, (taken, of_branches) = shares([p for p in NARROW if p in lines])
print("\nlines %.1f %%, branches of parsers and of the writer of checkpoints %.1f %%"
      % (100 * executed / max(of_lines, 1), 100 * taken / max(of_branches, 1)))
