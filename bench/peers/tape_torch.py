"""Cost of a recorded pointwise op in PyTorch: the peer of bench/tape.

A chain of `--ops` pointwise ops (multiplications by a constant; SiLU) on a four-element float32 tensor, recorded by
autograd, then the gradient with respect to the first tensor. Nanoseconds for each op, medians over rounds, one
thread, process CPU time: without recording, recorded forward only, forward and backward together. Prints one
JSON object.
"""

import argparse
import json
import os
import statistics
import time

ap = argparse.ArgumentParser(description="Cost of a recorded pointwise op in PyTorch eager")
ap.add_argument("--elements", type=int, default=4)
ap.add_argument("--ops", type=int, default=100, help="length of the chain")
ap.add_argument("--rounds", type=int, default=41)
ap.add_argument("--repeats", type=int, default=20, help="chains in one round")
ap.add_argument("--json", metavar="FILE")
cfg = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)
factor = torch.full((cfg.elements,), 1.01)
leaf = torch.ones(cfg.elements, requires_grad=True)
seed = torch.ones(cfg.elements)


def chain(x, op):
    for _ in range(cfg.ops):
        x = op(x)
    return x


def nanoseconds(f):
    for _ in range(cfg.repeats):
        f()
    rounds = []
    for _ in range(cfg.rounds):
        start = time.process_time()
        for _ in range(cfg.repeats):
            f()
        rounds.append((time.process_time() - start) / (cfg.repeats * cfg.ops) * 1e9)
    return {"median": round(statistics.median(rounds), 1), "min": round(min(rounds), 1)}


def unrecorded(op):
    with torch.no_grad():
        chain(leaf, op)


def both(op):
    torch.autograd.grad(chain(leaf, op), leaf, seed)


operations = {"mul": lambda x: x * factor, "silu": torch.nn.functional.silu}
result = {"torch": torch.__version__, "elements": cfg.elements, "ops": cfg.ops, "ns_per_op": {}}
for name, op in operations.items():
    result["ns_per_op"][name] = {
        "unrecorded": nanoseconds(lambda: unrecorded(op)),
        "recorded forward": nanoseconds(lambda: chain(leaf, op)),
        "forward and backward": nanoseconds(lambda: both(op)),
    }
print(json.dumps(result, indent=1))
if cfg.json:
    with open(cfg.json, "w") as f:
        json.dump(result, f, indent=1)
