#!/usr/bin/env python3
"""Costate beside PyTorch on adjoint matching of a small velocity network, interleaved in one run.

For each case (width x batch, threads):
  1. a tournament finds the fastest PyTorch: every mode of peers/adjoint_matching_torch.py under every
     interpreter of --python, a few iterations each;
  2. Costate's bench, optionally a hand-written loop, the winner and PyTorch's plain eager program then take
     turns, one iteration each, in an order that rotates from round to round, each waiting for an idle machine;
  3. medians, minima and the quartiles of the ratios taken round by round go into one table.

The Costate binary (and the hand-written one) is started as
  BINARY --hidden H --depth 3 --dim 2 --batch B --steps 40 --loss-steps 20 --threads T --serve
and answers each line "run" on stdin with one iteration and the line "seconds sample adjoint regress optimiser".
It times itself: process CPU time with one thread (preemption by other work does not count), else wall clock.

Needs Python 3.9 and, for the peers, an interpreter with PyTorch (2.x for mode compile, with g++ and Python's
headers). A C compiler measures the peak of a core and builds a small library that lets MKL use its best kernels
on any CPU; tcmalloc is used where it is installed. README.md beside this file shows complete command lines.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile

from interleave import HERE, Program, core_peak, cpu_name, interleave, interpreter, quartiles, tournament
from interleave import vendor_library

COLUMNS = ["total", "sample", "adjoint", "regress", "optimiser"]


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--costate", metavar="BINARY", help="Costate's bench/adjoint_matching")
    ap.add_argument("--hand", metavar="BINARY", help="a hand-written loop that speaks the same protocol")
    ap.add_argument(
        "--python",
        action="append",
        metavar="COMMAND",
        help="interpreter with PyTorch, environment assignments may precede it; may be repeated",
    )
    ap.add_argument(
        "--cases", default="64x64:1,64x64:2,256x256:1,256x256:2", help="hidden x batch : threads, ..."
    )
    ap.add_argument("--depth", type=int, default=3)
    ap.add_argument("--dim", type=int, default=2)
    ap.add_argument("--steps", type=int, default=40)
    ap.add_argument("--loss-steps", type=int, default=20)
    ap.add_argument("--rounds", type=int, default=31)
    ap.add_argument("--warmup", type=int, default=5)
    ap.add_argument(
        "--modes", default="lean,script,compile", help="PyTorch modes of the tournament besides eager"
    )
    ap.add_argument(
        "--unroll", type=int, default=40, help="steps in one graph of mode compile, a divisor of --steps"
    )
    ap.add_argument("--tournament", type=int, default=9, help="iterations of each entry")
    ap.add_argument("--peak", type=float, help="f32 GFLOP/s of one core; measured when absent")
    ap.add_argument("--idle-wait", type=float, default=3.0, help="longest wait for an idle machine, seconds")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    cfg = ap.parse_args()
    cfg.python = cfg.python or [sys.executable]
    try:
        cfg.cases = [
            tuple(map(int, re.fullmatch(r"(\d+)x(\d+):(\d+)", c).groups())) for c in cfg.cases.split(",")
        ]
    except AttributeError:
        ap.error(f'--cases expects items such as 64x64:1, found "{cfg.cases}"')
    if cfg.rounds < 2 or cfg.tournament < 1:
        ap.error("--rounds must be at least 2 and --tournament at least 1")
    return cfg


def workload(cfg, hidden, batch, threads):
    return [
        "--hidden",
        hidden,
        "--depth",
        cfg.depth,
        "--dim",
        cfg.dim,
        "--batch",
        batch,
        "--steps",
        cfg.steps,
        "--loss-steps",
        cfg.loss_steps,
        "--threads",
        threads,
        "--serve",
    ]


def torch_entries(cfg, vendor):
    """[(name, command, environment)] of the tournament."""
    entries = []
    for number, text in enumerate(cfg.python):
        peer = interpreter(text, vendor)
        for mode in ["eager"] + cfg.modes.split(","):
            if mode == "compile" and not peer["modern"]:
                continue
            for allocator, environment in peer["environments"].items():
                if mode != "eager" and allocator != list(peer["environments"])[-1]:
                    continue  # beyond eager, the last allocator has always won; eager shows what it is worth
                extra = ["--mode", mode, "--adam", "fused" if peer["modern"] else "foreach"]
                if mode == "compile":
                    extra += ["--unroll", cfg.unroll]
                label = f" of --python {number + 1}" if len(cfg.python) > 1 else ""
                entries.append(
                    (
                        f"torch {peer['version']}{label} {mode}, {allocator}",
                        [peer["program"], HERE / "peers" / "adjoint_matching_torch.py"] + extra,
                        environment,
                    )
                )
    return entries


# ---- the table ---------------------------------------------------------------------------------------------


def gigaflop(cfg, hidden, batch):
    """An iteration costs K forward passes to sample, 2 K for the adjoints and 3 L for the regression."""
    forward = 2 * batch * ((cfg.dim + 1) * hidden + (cfg.depth - 1) * hidden**2 + hidden * cfg.dim)
    return forward * (3 * cfg.steps + 3 * cfg.loss_steps) * 1e-9


def one_case(cfg, entries, peak, hidden, batch, threads):
    print(f"hidden {hidden}, batch {batch}, {threads} thread(s)", flush=True)
    arguments = workload(cfg, hidden, batch, threads)
    entries = [(n, c + arguments, e) for n, c, e in entries]
    medians = tournament(entries, cfg.warmup, cfg.tournament, cfg.idle_wait, COLUMNS)
    best = min(medians, key=medians.get)
    eager = min((n for n in medians if " eager, " in n), key=medians.get, default=best)
    chosen = [(n, c, e) for n, c, e in entries if n in (best, eager)]
    own = [
        (label, [path] + arguments, {})
        for label, path in (("costate", cfg.costate), ("hand loop", cfg.hand))
        if path
    ]
    programs, information = [], {}
    try:
        for name, command, environment in own + chosen:
            programs.append(Program(name, command, environment, COLUMNS))
        seconds, disturbed = interleave(programs, cfg.warmup, cfg.rounds, cfg.idle_wait)
        for program in programs[len(own) :]:
            information[program.name] = program.information()
    finally:
        for program in programs:
            program.close()
    totals = {p.name: [row[0] for row in s] for p, s in zip(programs, seconds)}
    work, rows = gigaflop(cfg, hidden, batch), []
    for program, s in zip(programs, seconds):
        median = statistics.median(totals[program.name])
        row = {
            "program": program.name,
            "median_ms": median * 1e3,
            "min_ms": min(totals[program.name]) * 1e3,
            "parts_ms": {n: statistics.median(c) * 1e3 for n, c in zip(COLUMNS[1:], list(zip(*s))[1:])},
            "gflops": work / median,
            "share_of_peak": work / median / (peak * threads) if peak else None,
            "faster_than": {
                other: quartiles([b / a for a, b in zip(totals[program.name], totals[other])])
                for other in totals
                if other != program.name
            },
        }
        rows.append(row)
        print(f"  {program.name}: median {median * 1e3:.2f} ms", flush=True)
    return {
        "hidden": hidden,
        "batch": batch,
        "threads": threads,
        "gflop": work,
        "fastest_torch": best,
        "eager_torch": eager,
        "rounds": cfg.rounds,
        "disturbed_turns": disturbed,
        "turns": cfg.rounds * len(programs),
        "tournament_ms": medians,
        "torch": information,
        "rows": rows,
    }


def markdown(result):
    peak = result["peak_gflops_per_core"]
    lines = [
        "# Adjoint matching, one iteration",
        "",
        f"CPU: {result['cpu']}, {result['processors']} processors; f32 peak "
        + (f"{peak:.0f} GFLOP/s per core. " if peak else "not measured. ")
        + f"K = {result['steps']}, {result['loss_steps']} loss steps, depth {result['depth']}, "
        f"dimension {result['dim']}.",
        'Medians over interleaved rounds; one thread by CPU clock, more by wall clock. "x fastest torch": the '
        "fastest PyTorch's time over this program's, round by round, median (quartiles). The parts are ms.",
        "",
        "| hidden x batch, threads | program | ms | min | x fastest torch | x eager torch | GFLOP/s (of peak) | "
        "sample | adjoint | regress | optimiser |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        for row in case["rows"]:

            def ratio(other):
                q = row["faster_than"].get(other)
                return f"{q[1]:.2f} ({q[0]:.2f}-{q[2]:.2f})" if q else "1"

            share = f" ({row['share_of_peak']:.0%})" if row["share_of_peak"] else ""
            parts = " | ".join(f"{row['parts_ms'][n]:.2f}" for n in COLUMNS[1:])
            lines.append(
                f"| {case['hidden']} x {case['batch']}, {case['threads']} | {row['program']} | "
                f"{row['median_ms']:.2f} | {row['min_ms']:.2f} | {ratio(case['fastest_torch'])} | "
                f"{ratio(case['eager_torch'])} | {row['gflops']:.0f}{share} | {parts} |"
            )
    lines += ["", "Tournament, median ms of a few iterations not interleaved:", ""]
    for case in result["cases"]:
        entries = ", ".join(
            f"{n} {t:.2f}" for n, t in sorted(case["tournament_ms"].items(), key=lambda e: e[1])
        )
        lines.append(
            f"- {case['hidden']} x {case['batch']}, {case['threads']}: {entries}. "
            f"{case['disturbed_turns']} of {case['turns']} interleaved turns found no idle machine."
        )
    return "\n".join(lines) + "\n"


def main():
    cfg = options()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        vendor = vendor_library(folder)
        if not vendor:
            print("no C compiler: MKL keeps its choice of kernels, the peak is not measured", flush=True)
        try:
            peak = cfg.peak or core_peak(folder)
            entries = torch_entries(cfg, vendor)
            result = {
                "cpu": cpu_name(),
                "processors": os.cpu_count(),
                "peak_gflops_per_core": peak,
                "depth": cfg.depth,
                "dim": cfg.dim,
                "steps": cfg.steps,
                "loss_steps": cfg.loss_steps,
                "cases": [],
            }
            cfg.out.mkdir(parents=True, exist_ok=True)
            for case in cfg.cases:  # written after each case: a run takes minutes and may be interrupted
                result["cases"].append(one_case(cfg, entries, peak, *case))
                (cfg.out / "adjoint_matching.json").write_text(json.dumps(result, indent=1) + "\n")
                (cfg.out / "adjoint_matching.md").write_text(markdown(result))
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    print("\n" + markdown(result))


if __name__ == "__main__":
    main()
