#!/usr/bin/env python3
"""Costate beside PyTorch on the three passes of 3x3 convolutions, interleaved in one run.

For each number of threads, case and pass, a few calls of every mode of peers/conv_torch.py under every allocator find the
fastest PyTorch; then Costate and the winner take turns, each waiting for an idle machine. Medians and the quartiles of the
ratios taken round by round go into results/conv.md.
"""
import argparse
import json
import os
import pathlib
import statistics
import tempfile

from interleave import GLIBC, HERE, Program, core_peak, cpu_name, library, quartiles, wait_idle

CASES = {"64x28": (16, 64, 28), "128x14": (16, 128, 14), "256x7": (16, 256, 7)}
PASSES = ["forward", "data", "weight"]


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--costate", metavar="BINARY", required=True, help="Costate's bench/conv")
    ap.add_argument("--python", metavar="COMMAND", required=True, help="interpreter with PyTorch")
    ap.add_argument("--threads", default="1,2")
    ap.add_argument("--rounds", type=int, default=21)
    ap.add_argument("--calls", type=int, default=3, help="calls a turn")
    ap.add_argument("--tournament", type=int, default=5, help="turns of each entry")
    ap.add_argument("--idle-wait", type=float, default=3.0, help="longest wait for an idle machine, seconds")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    return ap.parse_args()


def seconds(program, case, which, calls, mode=""):
    return float(program.ask(f"{case} {which} {calls} {mode}".strip()))


def one(cfg, costate, peers, case, which):
    """Medians of the tournament, then both programs' rounds with the winner."""
    medians = {}
    for name, (program, mode) in peers.items():
        seconds(program, case, which, 2, mode)
        medians[name] = statistics.median(seconds(program, case, which, cfg.calls, mode) for _ in range(cfg.tournament))
    best = min(medians, key=medians.get)
    program, mode = peers[best]
    seconds(costate, case, which, 2)
    ours, theirs, disturbed = [], [], 0
    for r in range(cfg.rounds):
        for turn in (r, r + 1):
            disturbed += not wait_idle(cfg.idle_wait)
            if turn % 2:
                theirs.append(seconds(program, case, which, cfg.calls, mode))
            else:
                ours.append(seconds(costate, case, which, cfg.calls))
    return best, medians, ours, theirs, disturbed


def main():
    cfg = options()
    rows, notes, info = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        peak = core_peak(pathlib.Path(folder))
    tcmalloc = library("tcmalloc_minimal") or library("tcmalloc")
    allocators = {"glibc": {"GLIBC_TUNABLES": GLIBC}}
    if tcmalloc:
        allocators["tcmalloc"] = {"LD_PRELOAD": tcmalloc}
    for threads in map(int, cfg.threads.split(",")):
        costate = Program("costate", [cfg.costate, "--threads", str(threads), "--serve"])
        programs, peers = [costate], {}
        try:
            for allocator, environment in allocators.items():
                command = [cfg.python, str(HERE / "peers" / "conv_torch.py"), "--threads", str(threads)]
                program = Program(f"torch, {allocator}", command, environment)
                programs.append(program)
                for mode in program.ask("modes").split():
                    peers[f"{mode}, {allocator}"] = program, mode
                info = json.loads(program.ask("info"))
            for case, (n, channels, side) in CASES.items():
                for which in PASSES:
                    best, medians, ours, theirs, disturbed = one(cfg, costate, peers, case, which)
                    work = 2e-9 * 9 * n * side * side * channels * channels
                    low, middle, high = quartiles([b / a for a, b in zip(ours, theirs)])
                    a, b = statistics.median(ours), statistics.median(theirs)
                    share = f" ({work / a / (peak * threads):.0%})" if peak else ""
                    busy = " (machine busy)" if threads > 1 and disturbed > cfg.rounds else ""
                    error = float(costate.ask(f"error {case} {which}"))
                    rows.append(
                        f"| N{n} C{channels} {side}x{side} | {which} | {threads} | {a * 1e3:.2f} | {work / a:.0f}{share} "
                        f"| {b * 1e3:.2f} ({best}) | {middle:.2f} ({low:.2f}-{high:.2f}){busy} | {error:.1e} |"
                    )
                    listing = ", ".join(f"{k} {v * 1e3:.2f}" for k, v in sorted(medians.items(), key=lambda e: e[1]))
                    notes.append(
                        f"- C{channels}, {which}, {threads}: {listing}. {disturbed} of {2 * cfg.rounds} turns found no "
                        "idle machine."
                    )
                    print(rows[-1], flush=True)
        finally:
            for program in programs:
                program.close()
    text = "\n".join(
        [
            "# Convolution, 3x3, stride 1, padding 1",
            "",
            f"CPU: {cpu_name()}, {os.cpu_count()} processors; f32 peak "
            + (f"{peak:.0f} GFLOP/s per core" if peak else "not measured")
            + f". PyTorch {info['torch']} ({info['capability']}), its fastest mode and allocator for each row. Medians over "
            f"{cfg.rounds} interleaved rounds of {cfg.calls} calls; one thread by CPU clock, more by wall clock. GFLOP/s count "
            "the multiplications of the definition, of which Winograd's method does a quarter: more than the peak is possible.",
            "Rows marked busy found no idle machine in most turns: PyTorch's threads spin at their barriers and suffer most, so "
            "such rows say nothing about an idle machine and are to be repeated.",
            "Ours keeps a parameter's transformed filters where that saves more than a twentieth of the call (of these shapes: "
            'at 7x7) and makes them anew elsewhere. "Faster": PyTorch\'s time over ours, '
            "round by round, median (quartiles). Error: the largest over the largest result, against f64.",
            "",
            "| images | pass | threads | ms | GFLOP/s (of peak) | PyTorch, ms | faster | error |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Tournament, median ms:",
            "",
            *notes,
            "",
        ]
    )
    cfg.out.mkdir(parents=True, exist_ok=True)
    (cfg.out / "conv.md").write_text(text)


if __name__ == "__main__":
    main()
