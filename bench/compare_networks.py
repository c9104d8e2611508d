#!/usr/bin/env python3
"""Costate beside PyTorch on single passes of a UNet and of a DiT, interleaved in one run.

For each case (network, work, threads) and each precision (f32, and bf16 products):
  1. a tournament finds the fastest PyTorch: every mode of peers/networks_torch.py that applies, with the
     fastest allocator; in bf16 with bfloat16 parameters and with autocast;
  2. Costate's bench and the winner then take turns, one pass each, in an order that rotates from round to round,
     each waiting for an idle machine;
  3. medians, quartiles of the ratios taken round by round, shares of the measured peak and peak memory go into
     one table, results/networks.md.

The Costate binary is started as
  BINARY --network unet|dit16|dit49|dit196 --work forward|training|vjp --precision f32|bf16 --batch B --threads T --serve
and answers each line "run" on stdin with one pass and its seconds, each line "info" with one line of JSON that has
peak_resident_bytes and resident_between_passes (and, of Costate, ledger_peak_bytes).

Needs Python 3.9 and an interpreter with PyTorch 2.x, g++ and Python's headers for the compiled modes. README.md
beside this file shows complete command lines.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from interleave import HERE, Program, core_peak, cpu_name, interleave, interpreter, quartiles, tournament
from interleave import vendor_library

NETWORKS = {"unet": 16, "dit16": 32, "dit49": 32, "dit196": 32}
WORKS = ["forward", "training", "vjp"]


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--costate", metavar="BINARY", help="Costate's bench/networks")
    ap.add_argument("--python", metavar="COMMAND", default=sys.executable, help="interpreter with PyTorch 2.x")
    ap.add_argument("--networks", default=",".join(NETWORKS))
    ap.add_argument("--works", default=",".join(WORKS))
    ap.add_argument("--precisions", default="f32,bf16")
    ap.add_argument("--threads", default="1,2")
    ap.add_argument(
        "--modes",
        default="eager,channels_last,compile,compile_last,freeze",
        help="modes of the tournament; autotune besides takes minutes a case to compile",
    )
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--warmup", type=int, default=3)
    ap.add_argument("--tournament", type=int, default=5, help="passes of each entry")
    ap.add_argument("--peak", type=float, help="f32 GFLOP/s of one core; measured when absent")
    ap.add_argument("--idle-wait", type=float, default=3.0, help="longest wait for an idle machine, seconds")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    ap.add_argument("--add", action="store_true", help="keep the cases of an earlier run that this one has not")
    cfg = ap.parse_args()
    cfg.threads = [int(t) for t in cfg.threads.split(",")]
    for name, allowed in (("networks", NETWORKS), ("works", WORKS), ("precisions", ["f32", "bf16"])):
        asked = getattr(cfg, name).split(",")
        wrong = [x for x in asked if x not in allowed]
        if wrong:
            ap.error(f'--{name} names "{wrong[0]}"; expected some of {", ".join(allowed)}')
        setattr(cfg, name, asked)
    if cfg.rounds < 2 or cfg.tournament < 1:
        ap.error("--rounds must be at least 2 and --tournament at least 1")
    return cfg


PEER = HERE / "peers" / "networks_torch.py"


def entries_of(cfg, peer, network, work, precision, threads):
    """[(name, command, environment)] of the tournament."""
    allocator, environment = list(peer["environments"].items())[-1]
    entries = []
    for mode in cfg.modes.split(","):
        if (mode.endswith("_last") and network != "unet") or (mode == "freeze" and work != "forward"):
            continue
        for p in ["f32"] if precision == "f32" else ["bf16", "autocast"]:
            arguments = ["--network", network, "--work", work, "--precision", p, "--mode", mode]
            arguments += ["--batch", NETWORKS[network], "--threads", threads]
            name = f"torch {peer['version']} {mode}{'' if p == 'f32' else ' ' + p}, {allocator}"
            entries.append((name, [peer["program"], PEER, *arguments, "--serve"], environment))
    return entries


def gigaflop(peer, network, work):
    command = [peer["program"], PEER, "--network", network, "--work", work, "--batch", NETWORKS[network], "--count"]
    answer = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return float(answer.stdout)


def one_case(cfg, peer, peak, network, work, threads, precision):
    print(f"{network}, {work}, {precision}, {threads} thread(s)", flush=True)
    entries = entries_of(cfg, peer, network, work, precision, threads)
    medians = tournament(entries, cfg.warmup, cfg.tournament, cfg.idle_wait)
    best = min(medians, key=medians.get)
    chosen = [e for e in entries if e[0] == best]
    if precision == "bf16":  # beside PyTorch's fastest f32 too
        f32 = entries_of(cfg, peer, network, work, "f32", threads)
        f32_medians = tournament(f32, cfg.warmup, cfg.tournament, cfg.idle_wait)
        chosen += [e for e in f32 if e[0] == min(f32_medians, key=f32_medians.get)]
        medians.update(f32_medians)
    own = []
    if cfg.costate:
        command = [cfg.costate, "--network", network, "--work", work, "--batch", NETWORKS[network]]
        for p in ["f32"] if precision == "f32" else ["bf16", "f32"]:
            own.append((f"costate {p}", command + ["--precision", p, "--threads", threads, "--serve"], {}))
    programs, information = [], {}
    try:
        for name, command, environment in own + chosen:
            programs.append(Program(name, command, environment))
        seconds, disturbed = interleave(programs, cfg.warmup, cfg.rounds, cfg.idle_wait)
        for program in programs:
            information[program.name] = program.information()
    finally:
        for program in programs:
            program.close()
    totals = {p.name: [row[0] for row in s] for p, s in zip(programs, seconds)}
    work_done, rows = gigaflop(peer, network, work), []
    for name, times in totals.items():
        median = statistics.median(times)
        info = information[name]
        row = {
            "program": name,
            "median_ms": median * 1e3,
            "min_ms": min(times) * 1e3,
            "gflops": work_done / median,
            "share_of_peak": work_done / median / (peak * threads) if peak else None,
            "peak_mib": (info["peak_resident_bytes"] - info["resident_before_first_pass"]) / 2**20,
            "ledger_mib": info["ledger_peak_bytes"] / 2**20 if "ledger_peak_bytes" in info else None,
            "faster_than": {
                other: quartiles([b / a for a, b in zip(times, totals[other])])
                for other in totals
                if other != name
            },
        }
        rows.append(row)
        print(f"  {name}: median {median * 1e3:.2f} ms, peak {row['peak_mib']:.0f} MiB", flush=True)
    return {
        "network": network,
        "work": work,
        "precision": precision,
        "threads": threads,
        "batch": NETWORKS[network],
        "gflop": work_done,
        "fastest_torch": [e[0] for e in chosen],
        "rounds": cfg.rounds,
        "disturbed_turns": disturbed,
        "turns": cfg.rounds * len(programs),
        "tournament_ms": medians,
        "information": information,
        "rows": rows,
    }


def markdown(result):
    peak = result["peak_gflops_per_core"]
    lines = [
        "# One pass of a UNet and of a DiT",
        "",
        f"CPU: {result['cpu']}, {result['processors']} processors; f32 peak "
        + (f"{peak:.0f} GFLOP/s per core, of which all shares are. " if peak else "not measured. ")
        + "UNet: base 64, multipliers 1, 2, 2, two blocks, attention at 7x7, 28x28x1, batch 16. DiT: width 384, "
        "depth 6, 6 heads, batch 32; 16, 49 and 196 tokens. training: gradients of all parameters; vjp: of the "
        "input alone, parameters frozen; both with the forward pass.",
        'Medians over interleaved rounds; one thread by CPU clock, more by wall clock. "x torch": PyTorch\'s time '
        "over this program's, round by round, median (quartiles). GFLOP/s counts the operations of the direct "
        "method. Peak: resident memory at the highest point beyond that before the first pass, MiB.",
        "",
        "| network, work, threads | program | ms | min | x torch of this precision | x torch f32 | GFLOP/s (of peak) | "
        "peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        for row in case["rows"]:

            def ratio(other):
                q = row["faster_than"].get(other)
                return f"{q[1]:.2f} ({q[0]:.2f}-{q[2]:.2f})" if q else "1"

            share = f" ({row['share_of_peak']:.0%})" if row["share_of_peak"] else ""
            lines.append(
                f"| {case['network']}, {case['work']}, {case['threads']} | {row['program']} | {row['median_ms']:.2f} | "
                f"{row['min_ms']:.2f} | {ratio(case['fastest_torch'][0])} | {ratio(case['fastest_torch'][-1])} | "
                f"{row['gflops']:.0f}{share} | {row['peak_mib']:.0f} |"
            )
    lines += ["", "Tournament, median ms of a few passes not interleaved:", ""]
    for case in result["cases"]:
        entries = ", ".join(f"{n} {t:.2f}" for n, t in sorted(case["tournament_ms"].items(), key=lambda e: e[1]))
        lines.append(
            f"- {case['network']}, {case['work']}, {case['precision']}, {case['threads']}: {entries}. "
            f"{case['disturbed_turns']} of {case['turns']} interleaved turns found no idle machine."
        )
    return "\n".join(lines) + "\n"


def main():
    cfg = options()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        try:
            peak = cfg.peak or core_peak(folder)
            peer = interpreter(cfg.python, vendor_library(folder))
            result = {
                "cpu": cpu_name(),
                "processors": os.cpu_count(),
                "peak_gflops_per_core": peak,
                "cases": [],
            }
            cfg.out.mkdir(parents=True, exist_ok=True)
            file = cfg.out / "networks.json"

            def key(case):
                return case["network"], case["work"], case["precision"], case["threads"]

            if cfg.add and file.exists():
                result["cases"] = json.loads(file.read_text())["cases"]
            for threads in cfg.threads:
                for network in cfg.networks:
                    for work in cfg.works:
                        for precision in cfg.precisions:  # written after each case: a run may be interrupted
                            case = one_case(cfg, peer, peak, network, work, threads, precision)
                            kept = [c for c in result["cases"] if key(c) != key(case)]
                            result["cases"] = sorted(kept + [case], key=lambda c: (c["threads"], key(c)))
                            file.write_text(json.dumps(result, indent=1) + "\n")
                            (cfg.out / "networks.md").write_text(markdown(result))
        except (RuntimeError, subprocess.CalledProcessError) as error:
            sys.exit(f"error: {error}")
    print("\n" + markdown(result))


if __name__ == "__main__":
    main()
