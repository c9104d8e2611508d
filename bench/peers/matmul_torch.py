"""The products of bench/matmul's layers in PyTorch: GFLOP/s of x W^T + b, g W and g^T x, in f32 and bfloat16.

One thread by the process CPU clock, more by the wall clock; best of several rounds of each.
"""

import argparse
import os
import time

ap = argparse.ArgumentParser()
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--rounds", type=int, default=5)
cfg = ap.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, str(cfg.threads))

import torch  # noqa: E402

torch.set_num_threads(cfg.threads)
clock = time.process_time if cfg.threads == 1 else time.perf_counter
LAYERS = [
    ("qkv", 1568, 1152, 384),
    ("proj", 1568, 384, 384),
    ("fc1", 1568, 1536, 384),
    ("fc2", 1568, 384, 1536),
    ("modulation", 32, 2304, 384),
    ("fc1 of 64 rows", 64, 1536, 384),
    ("conv 1x1", 12544, 128, 192),
    ("conv 1x1 narrow", 12544, 64, 64),
]

for dtype in (torch.float32, torch.bfloat16):
    for name, rows, outputs, inputs in LAYERS:
        x, w = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        g, b = torch.randn(rows, outputs, dtype=dtype), torch.randn(outputs, dtype=dtype)
        passes = {
            "NT": lambda: torch.nn.functional.linear(x, w, b),
            "dX": lambda: g @ w,
            "dW and db": lambda: (g.t() @ x, g.sum(0)),
        }
        work = 2e-9 * rows * outputs * inputs
        for label, run in passes.items():
            run()
            repeat = max(1, int(0.03 * 100 / work))
            best = float("inf")
            for _ in range(cfg.rounds):
                start = clock()
                for _ in range(repeat):
                    run()
                best = min(best, (clock() - start) / repeat)
            print(f"{'f32' if dtype == torch.float32 else 'bf16'}/{name} {label}: {work / best:.1f}", flush=True)
