#!/usr/bin/env python3
"""Costate beside torchsde and diffrax on gradients of stochastic differential equations, interleaved in one run.

The problems are those of peers/adjoint_problems.py: forward and gradient with respect to x_0 and all parameters. For each
case (problem, precision, threads) every method of every program is started as a process of its own; they take turns, one
gradient each, in an order that rotates from round to round, each waiting for an idle machine. Time, memory and error of the
gradients go into one table, results/adjoints.md.

Protocol. --costate BINARY is started as
  BINARY --list                    one line of JSON: {"ou": [method, ...], "neural_sde": [method, ...]}
  BINARY --problem ou|neural_sde --method M --threads T --precision f32|f64 --serve
         answers each line "run" on stdin with one gradient, of noise of its own, and its seconds (process CPU time
         with one thread, else wall clock), and each line "info" with one line of JSON
  BINARY --problem P --method M --threads T --precision f32|f64 --rounds N
         N gradients; prints the line of "info" with "seconds": [N numbers] added
The JSON has method, problem, precision, threads, library, loss, gradient_norm_x0, gradient_norm_parameters, and
  peak_resident_bytes       growth of the resident memory at the highest point of the process's first gradient of full
                            size, after a tiny one of the same kind (null where it cannot be measured)
  drift_evaluations         of one gradient, where the program counts them
  difference_from_backprop  of the gradient from that through the same solver on the same path: the largest over its tensors
                            of |a - b|/|b|; absent where the method is that
  theta_gradient, theta_standard_error, theta_exact, theta_relative_error   (ou) mean over all gradients so far beside
                            the exact derivative
and may have ledger_peak_bytes (exact, Costate), temporary_bytes and compile_seconds (XLA's own, JAX). The peers are started
in the same way; their --list prints one list of methods for both problems.

Needs Python 3.9 and interpreters with torchsde, resp. diffrax (pip install torchsde; pip install diffrax).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from interleave import HERE, Program, cpu_name, interleave, quartiles

CASES = [("ou", "f32"), ("ou", "f64"), ("neural_sde", "f32")]
TITLES = {
    "ou": "Ornstein-Uhlenbeck, one parameter, 200 steps",
    "neural_sde": "neural drift 33-64-64-32 (8,416 parameters), 100 steps",
}


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--costate", metavar="BINARY", help="Costate's bench/adjoints")
    ap.add_argument("--torchsde", metavar="PYTHON", help="interpreter with torchsde")
    ap.add_argument("--diffrax", metavar="PYTHON", help="interpreter with diffrax")
    ap.add_argument("--cases", default=",".join("/".join(c) for c in CASES))
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--methods", help="only those whose name contains one of these words, separated by commas")
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--warmup", type=int, default=1)
    ap.add_argument("--idle-wait", type=float, default=3.0, help="longest wait for an idle machine, seconds")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    ap.add_argument("--add", action="store_true", help="keep the cases of an earlier run that this one has not")
    cfg = ap.parse_args()
    cfg.threads = [int(t) for t in cfg.threads.split(",")]
    cfg.cases = [tuple(c.split("/")) for c in cfg.cases.split(",")]
    for case in cfg.cases:
        if case not in CASES:
            ap.error(f'--cases names "{"/".join(case)}"; expected some of ' + ", ".join("/".join(c) for c in CASES))
    if not (cfg.costate or cfg.torchsde or cfg.diffrax):
        ap.error("nothing to compare: give --costate, --torchsde or --diffrax")
    if cfg.rounds < 2:
        ap.error("--rounds must be at least 2")
    return cfg


def starters(cfg):
    """[(program, command)]"""
    found = []
    if cfg.costate:
        found.append(("costate", [cfg.costate]))
    for name in ("torchsde", "diffrax"):
        if getattr(cfg, name):
            found.append((name, [getattr(cfg, name), "-B", str(HERE / "peers" / f"adjoints_{name}.py")]))
    return found


def methods_of(command, problem):
    answer = subprocess.run([*command, "--list"], capture_output=True, text=True)
    if answer.returncode != 0:
        raise RuntimeError(f"{command[0]} --list failed: " + answer.stderr.strip()[-300:])
    listed = json.loads(answer.stdout.strip().splitlines()[-1])
    return listed[problem] if isinstance(listed, dict) else listed


def one_case(cfg, problem, precision, threads):
    print(f"{problem}, {precision}, {threads} thread(s)", flush=True)
    programs, left_out = [], []
    try:
        for name, command in starters(cfg):
            for method in methods_of(command, problem):
                if cfg.methods and not any(word in method for word in cfg.methods.split(",")):
                    continue
                arguments = ["--problem", problem, "--method", method, "--threads", threads, "--precision", precision]
                program = Program(f"{name} {method}", [*command, *arguments, "--serve"])
                try:  # ready, and compiled, before the next one starts
                    for _ in range(cfg.warmup):
                        program.run()
                    programs.append(program)
                except RuntimeError as error:
                    left_out.append(str(error))
                    print(f"  left out: {error}", flush=True)
                    program.close()
        if not programs:
            raise RuntimeError("no program ran: " + "; ".join(left_out))
        seconds, disturbed = interleave(programs, 0, cfg.rounds, cfg.idle_wait)
        information = [p.information() for p in programs]
    finally:
        for program in programs:
            program.close()
    times = [[row[0] for row in s] for s in seconds]
    fastest = min(range(len(times)), key=lambda i: statistics.median(times[i]))
    rows = []
    for program, own, info in zip(programs, times, information):
        row = {
            "program": program.name,
            "median_ms": statistics.median(own) * 1e3,
            "min_ms": min(own) * 1e3,
            "slower_than_fastest": quartiles([a / b for a, b in zip(own, times[fastest])]),
            "seconds": own,
            "information": info,
        }
        rows.append(row)
        print(f"  {program.name}: median {row['median_ms']:.1f} ms", flush=True)
    return {
        "problem": problem,
        "precision": precision,
        "threads": threads,
        "rounds": cfg.rounds,
        "disturbed_turns": disturbed,
        "turns": cfg.rounds * len(programs),
        "left_out": left_out,
        "rows": sorted(rows, key=lambda r: r["median_ms"]),
    }


def mib(value):
    return "" if value is None else f"{value / 2**20:.2f}"


def markdown(result):
    lines = [
        "# Gradients of stochastic differential equations",
        "",
        f"CPU: {result['cpu']}, {result['processors']} processors. Forward and gradient of the mean of X_T^2 with respect to "
        "x_0 and all parameters, batch 256, d = 32; the same steps and schemes everywhere, noise of its own in every "
        "gradient. Medians over interleaved rounds; one thread by CPU clock, more by wall clock; compilation excluded.",
        '"x fastest": this method\'s time over that of the fastest one, round by round, median (quartiles). Peak: growth of the '
        "resident memory in the process's first gradient, MiB; in brackets the program's own count (Costate's ledger, "
        "XLA's temporaries). loop_euler is plain PyTorch and scan_euler plain JAX, without the library. "
        "Difference: of the gradient from the one through the same solver on the same path. Theta: "
        "relative error of the mean gradient with respect to theta from the exact one (standard error of the mean).",
    ]
    for case in result["cases"]:
        lines += [
            "",
            f"## {TITLES[case['problem']]}, {case['precision']}, {case['threads']} thread(s)",
            "",
            "| method | ms | min | x fastest | peak MiB | drift evaluations | difference | theta | compile s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in case["rows"]:
            info, q = row["information"], row["slower_than_fastest"]
            own = info.get("ledger_peak_bytes", info.get("temporary_bytes"))
            peak = mib(info.get("peak_resident_bytes")) + (f" ({mib(own)})" if own is not None else "")
            difference = info.get("difference_from_backprop")
            theta = ""
            if "theta_relative_error" in info:
                error = info["theta_standard_error"] / abs(info["theta_exact"])
                theta = f"{info['theta_relative_error']:.1e} ({error:.1e})"
            compiled = info.get("compile_seconds")
            lines.append(
                f"| {row['program']} | {row['median_ms']:.1f} | {row['min_ms']:.1f} | {q[1]:.2f} ({q[0]:.2f}-{q[2]:.2f}) | "
                f"{peak} | {info.get('drift_evaluations', '')} | {'' if difference is None else f'{difference:.1e}'} | "
                f"{theta} | {'' if compiled is None else f'{compiled:.1f}'} |"
            )
        lines += ["", f"{case['disturbed_turns']} of {case['turns']} turns found no idle machine."]
        lines += [f"Left out: {sentence}" for sentence in case["left_out"]]
    libraries = sorted({r["information"]["library"] for c in result["cases"] for r in c["rows"]})
    return "\n".join(lines + ["", "Versions: " + "; ".join(libraries) + "."]) + "\n"


def main():
    cfg = options()
    result = {"cpu": cpu_name(), "processors": os.cpu_count(), "cases": []}
    cfg.out.mkdir(parents=True, exist_ok=True)
    file = cfg.out / "adjoints.json"

    def key(case):
        return case["threads"], case["problem"], case["precision"]

    if cfg.add and file.exists():
        result["cases"] = json.loads(file.read_text())["cases"]
    try:
        for threads in cfg.threads:
            for problem, precision in cfg.cases:  # written after each case: a run may be interrupted
                case = one_case(cfg, problem, precision, threads)
                result["cases"] = sorted([c for c in result["cases"] if key(c) != key(case)] + [case], key=key)
                file.write_text(json.dumps(result, indent=1) + "\n")
                (cfg.out / "adjoints.md").write_text(markdown(result))
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    print("\n" + markdown(result))


if __name__ == "__main__":
    main()
