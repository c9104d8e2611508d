#!/usr/bin/env python3
"""Changes the code under test in one place at a time and counts how often the suite notices.

    scripts/mutate.py --build-dir build/release --sample 200

Mutants are made in the derivative rules, the adjoints and the objectives (SUBJECTS below): an operator, a comparison, a sign, a
number, a condition or a whole statement is another or is gone. Each is compiled, linked before the library into the tests of its
folder, and run until a test fails. A mutant that does not compile, or compiles to the very code of the original, does not count.
Survivors are printed; the last line is 'N of M mutants killed (P %)'. The build directory must be built (Release, g++ or clang,
Ninja); nothing in it or in the sources is written.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = ["attention", "conv", "dropout", "image", "layout", "norm", "pointwise", "product", "reduce", "rows"]
# name -> (globs of sources, tests in the order in which they are run)
SUBJECTS = {
    "derivative rules": ([f"autograd/{name}.cpp" for name in RULES], ["test_autograd", "test_nn"]),
    "adjoints": (["sde/adjoint/*.cpp", "sde/step.cpp", "sde/chain_process.cpp", "sde/sde_process.cpp", "sde/girsanov.cpp"],
                 ["test_sde", "test_finetune"]),
    "objectives": (["finetune/regression/*.cpp", "finetune/policy_gradient/*.cpp", "finetune/backpropagation/*.cpp",
                    "finetune/initial_law/*.cpp", "finetune/reward/f_divergence.cpp"], ["test_finetune", "test_cli"]),
}
# Of a test program, those that are about the subjects. Of the command line's: objectives that are stopped and go on.
FILTERS = {"test_cli": "TrainingState*.*:*/TrainingState.*"}
# Code that other tests are about.
TESTS_OF = {"finetune/regression/device_iteration.cpp": ["test_cuda"]}

SWAPS = {"+": "-", "-": "+", "*": "/", "/": "*", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "<": "<=", "<=": "<", ">": ">=",
         ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&"}
# (pattern, replacement of the match): the style of the code tells operators, which stand between blanks, from brackets and pointers.
OPERATORS = [
    (re.compile(r"(?<= )(\+|-|\*|/|\+=|-=|\*=|/=|<|<=|>|>=|==|!=|&&|\|\|)(?= )"), lambda m: SWAPS[m[1]]),
    (re.compile(r"(?<=[(=,] )-(?=[\w(])|(?<=[(])-(?=[\w(])|(?<=return )-(?=[\w(])"), lambda m: ""),
    (re.compile(r"(?<=[ (])!(?=[\w(])"), lambda m: ""),
    (re.compile(r"(?<![\w.])\d+\.\d*(?:e-?\d+)?f?(?![\w.])"), lambda m: "(2 * (%s) + 1)" % m[0]),
    (re.compile(r"(?<![\w.<\[{])[012](?![\w.>\]])"), lambda m: str(int(m[0]) + 1)),
    (re.compile(r"\btrue\b"), lambda m: "false"),
    (re.compile(r"\bfalse\b"), lambda m: "true"),
    (re.compile(r"\bstd::(min|max)\b"), lambda m: "std::max" if m[1] == "min" else "std::min"),
    (re.compile(r"(?m)^ +(?!return\b|using\b|case\b|break\b|continue\b|throw\b|fail\()[\w.>\[\]:-]+(?:\(.*\)| [-+*/]?= .*);$"),
     lambda m: ";"),
]


def say(text):
    print(text, flush=True)


def blanked(source):
    """The source with comments, texts and directives as blanks, so that places stay what they are."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#[^\n]*'
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.S | re.M)


def mutants_of(path):
    source = (ROOT / path).read_text()
    code = blanked(source)
    out = []
    for pattern, change in OPERATORS:
        for m in pattern.finditer(code):
            # What is replaced may hold texts that were blanked: a statement goes as a whole, the others hold none.
            out.append({"path": path, "begin": m.start(), "end": m.end(), "new": change(m),
                        "line": source.count("\n", 0, m.start() + len(m[0]) - len(m[0].lstrip())) + 1})
    return out


class Build:
    def __init__(self, folder, work):
        self.folder, self.work = folder, work
        commands = json.loads(subprocess.run(["ninja", "-C", folder, "-t", "compdb"], capture_output=True, text=True, check=True).stdout)
        self.compile = {}
        for c in commands:
            if c["output"].startswith("CMakeFiles/costate.dir/"):
                path = os.path.relpath(os.path.join(c["directory"], c["file"]), ROOT)
                self.compile[path] = shlex.split(c["command"])
        self.links, self.tests, self.original = {}, {}, {}

    def run(self, command, **options):
        return subprocess.run(command, cwd=self.folder, capture_output=True, **options)

    def compiled(self, path, text, target):
        """Whether the text compiles in the place of the source at `path`."""
        words = [w for w in self.compile[path] if w != "ccache"]
        out = []
        skip = 0
        for w in words:
            if skip:
                skip -= 1
            elif w in ("-o", "-c", "-MF", "-MT", "-MQ"):
                skip = 1
            elif w not in ("-MD", "-Werror", "-g"):
                out.append(w)
        out += ["-w", "-O1", "-iquote", str((ROOT / path).parent), "-x", "c++", "-", "-c", "-o", str(target)]
        return self.run(out, input=text.encode()).returncode == 0

    def link(self, test):
        if test not in self.links:
            lines = self.run(["ninja", "-t", "commands", f"tests/{test}"], text=True).stdout.splitlines()
            command = next(c for c in reversed(lines) if f"-o tests/{test} " in c)
            words = shlex.split(command[command.index("&&") + 2:])
            self.links[test] = words[:words.index("&&")]
        return self.links[test]

    def linked(self, test, object_file, target):
        words = [str(target) if w == f"tests/{test}" else w for w in self.link(test)]
        library = next(i for i, w in enumerate(words) if w.endswith("libcostate.a"))
        return self.run(words[:library] + [str(object_file)] + words[library:]).returncode == 0

    def suite(self, test):
        """Names of tests by the file that they are in."""
        if test not in self.tests:
            listing = self.work / f"{test}.json"
            self.run([f"tests/{test}", "--gtest_list_tests", f"--gtest_output=json:{listing}",
                      "--gtest_filter=" + FILTERS.get(test, "-Whole.*")], check=True)
            files = {}
            for s in json.loads(listing.read_text())["testsuites"]:
                for t in s["testsuite"]:
                    files.setdefault(pathlib.Path(t["file"]).name, []).append(s["name"] + "." + t["name"])
            self.tests[test] = files
        return self.tests[test]


def words_of(name):
    return set(re.split(r"[/_.]", name)) - {"cpp", "test", "finetune", "sde", "autograd", "network", "the"}


def near_first(files, path):
    """Tests of files whose names share words with the source first: that is where a mutant dies soonest."""
    near = [t for f, tests in files.items() if words_of(f) & words_of(path) for t in tests]
    far = [t for f, tests in files.items() if not words_of(f) & words_of(path) for t in tests]
    return [part for part in (near, far) if part]


def trial(build, mutant, limit, number):
    """'killed', 'survived', 'same' or 'invalid'."""
    path = mutant["path"]
    source = (ROOT / path).read_text()
    text = source[:mutant["begin"]] + mutant["new"] + source[mutant["end"]:]
    objects, program = build.work / f"{number}.o", build.work / f"{number}.test"
    try:
        if not build.compiled(path, text, objects):
            return "invalid", ""
        if objects.read_bytes() == build.original[path]:
            return "same", ""
        for test in TESTS_OF.get(path, mutant["tests"]):
            if not build.linked(test, objects, program):
                return "invalid", ""
            for part in near_first(build.suite(test), path):
                flags = build.work / f"{number}.flags"
                flags.write_text("--gtest_filter=" + ":".join(part) + "\n")
                try:
                    ran = subprocess.run([str(program), f"--gtest_flagfile={flags}", "--gtest_fail_fast"], cwd=build.folder / "tests",
                                         capture_output=True, timeout=limit)
                except subprocess.TimeoutExpired:
                    return "killed", "out of time"
                if ran.returncode != 0:
                    failed = re.search(rb"\[  FAILED  \] ([\w/.]+)", ran.stdout)
                    return "killed", failed[1].decode() if failed else f"exit {ran.returncode}"
        return "survived", ""
    finally:
        for f in (objects, program, build.work / f"{number}.flags"):
            f.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", default="build/release", help="a Release build with tests; default build/release")
    parser.add_argument("--sample", type=int, default=200, help="mutants, drawn from all in proportion; 0: all; default 200")
    parser.add_argument("--seed", type=int, default=1, help="of the draw; default 1")
    parser.add_argument("--only", default="", help="sources whose path has this in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at once; default one a processor")
    parser.add_argument("--limit", type=float, default=600, help="seconds that tests may take before a mutant counts as killed; default 600")
    parser.add_argument("--out", help="a file to which each mutant is appended as a line of JSON; those in it are not tried again")
    parser.add_argument("--list", action="store_true", help="print the mutants, and do nothing else")
    a = parser.parse_args()

    mutants = []
    for subject, (globs, tests) in SUBJECTS.items():
        for path in sorted(p for g in globs for p in ROOT.glob(g)):
            name = str(path.relative_to(ROOT))
            if a.only in name:
                mutants += [dict(m, subject=subject, tests=tests) for m in mutants_of(name)]
    if not mutants:
        sys.exit(f"mutate.py: no source has '{a.only}' in its path")
    everything = len(mutants)
    if 0 < a.sample < everything:
        mutants = sorted(random.Random(a.seed).sample(mutants, a.sample), key=lambda m: (m["path"], m["begin"]))

    def place(m):
        old = (ROOT / m["path"]).read_text()[m["begin"]:m["end"]].strip()
        return f"{m['path']}:{m['line']}: '{old}' -> '{m['new']}'"
    if a.list:
        for m in mutants:
            say(place(m))
        say(f"{len(mutants)} of {everything} mutants")
        return
    done = {}
    if a.out and os.path.exists(a.out):
        done = {r["mutant"]: r for r in map(json.loads, open(a.out))}

    with tempfile.TemporaryDirectory() as work:
        build = Build(pathlib.Path(a.build_dir).resolve(), pathlib.Path(work))
        for path in sorted({m["path"] for m in mutants if place(m) not in done}):
            target = build.work / "original.o"
            if not build.compiled(path, (ROOT / path).read_text(), target):
                sys.exit(f"mutate.py: {path} does not compile as it is")
            build.original[path] = target.read_bytes()
        for tests in {tuple(TESTS_OF.get(m["path"], m["tests"])) for m in mutants}:
            for test in tests:
                build.link(test), build.suite(test)
        say(f"{len(mutants)} of {everything} mutants, {a.jobs} at once")

        def one(numbered):
            number, m = numbered
            if place(m) in done:
                return done[place(m)]
            begin = time.time()
            fate, by = trial(build, m, a.limit, number)
            return {"mutant": place(m), "subject": m["subject"], "fate": fate, "by": by, "seconds": round(time.time() - begin, 1)}

        results = []
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            for result in pool.map(one, enumerate(mutants)):
                results.append(result)
                if a.out and result["mutant"] not in done:
                    with open(a.out, "a") as f:
                        f.write(json.dumps(result) + "\n")
                if result["fate"] == "survived":
                    say("survived: " + result["mutant"])
    for subject in SUBJECTS:
        fates = [r["fate"] for r in results if r["subject"] == subject]
        killed, survived = fates.count("killed"), fates.count("survived")
        if killed + survived:
            say(f"{subject}: {killed} of {killed + survived} killed ({100 * killed / (killed + survived):.1f} %); "
                f"{fates.count('same')} compile to the same code, {fates.count('invalid')} do not compile")
    killed, survived = (sum(r["fate"] == f for r in results) for f in ("killed", "survived"))
    say(f"{killed} of {killed + survived} mutants killed ({100 * killed / max(killed + survived, 1):.1f} %)")


if __name__ == "__main__":
    main()
