"""PyTorch's group norm + SiLU, modulated layer norm and attention: the rows of bench/rows.cpp.

    python rows_torch.py [threads]
"""
import sys
import time

import torch
import torch.nn.functional as F

threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
torch.set_num_threads(threads)
clock = time.process_time if threads == 1 else time.perf_counter


def median_of(f):
    f()
    start, calls = clock(), 0
    while clock() - start < 0.01:
        f()
        calls += 1
    rounds = []
    for _ in range(15):
        start = clock()
        for _ in range(calls):
            f()
        rounds.append((clock() - start) / calls)
    return sorted(rounds)[7]


def report(name, f, operands, wanted):
    with torch.no_grad():
        forward = median_of(lambda: f(*operands))
    operands = [x.detach().requires_grad_(i < wanted) for i, x in enumerate(operands)]
    y = f(*operands)
    g = torch.randn_like(y)
    sweep = median_of(lambda: torch.autograd.grad(y, operands[:wanted], g, retain_graph=True))
    print(f"| {name} | {forward * 1e3:.3f} | {sweep * 1e3:.3f} |", flush=True)


print(f"| {threads} thread(s), PyTorch {torch.__version__} | forward, ms | gradient, ms |\n| --- | --- | --- |")
for n, side, c in ((16, 28, 64), (16, 14, 128), (16, 7, 256), (4, 64, 128)):
    x, gamma, beta = torch.randn(n, c, side, side), torch.randn(c), torch.randn(c)
    norm = lambda x, gamma, beta: F.silu(F.group_norm(x, 32, gamma, beta, 1e-5))
    size = f"{n} x {side} x {side} x {c}"
    report(f"group norm, SiLU, {size}", norm, [x, gamma, beta], 1)
    report(f"group norm, SiLU, {size}, channels_last", norm,
           [x.to(memory_format=torch.channels_last), gamma, beta], 1)
for n, t, d in ((32, 16, 384), (32, 49, 384), (32, 196, 384)):
    report(f"modulated layer norm, {n} x {t} x {d}",
           lambda x, a, b: F.layer_norm(x, (d,), eps=1e-6) * (1 + a[:, None]) + b[:, None],
           [torch.randn(n, t, d), torch.randn(n, d), torch.randn(n, d)], 1)
for n, t, heads, width in ((32, 16, 6, 64), (32, 49, 6, 64), (32, 196, 6, 64), (32, 256, 16, 16), (16, 49, 4, 32),
                           (16, 49, 1, 256)):
    split = lambda x: x.view(n, t, heads, width).transpose(1, 2)
    report(f"attention, batch {n}, {t} tokens, {heads} heads of {width}",
           lambda q, k, v: F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).reshape(n, t, -1),
           [torch.randn(n, t, heads * width) for _ in range(3)], 3)
