"""Adjoint matching of a small velocity network in PyTorch: the peer of Costate's bench/adjoint_matching.

One iteration fine-tunes v_ft toward the reward r(x) = 2 x_0 (Domingo-Enrich et al. 2024, "Adjoint Matching",
Algorithm 1):

  sample     K Euler-Maruyama steps of the memoryless SDE under v_ft, without gradients,
                 x_{k+1} = x_k + h b(x_k, t_k) + sqrt(h) sigma_k eps_k,  b(x, t) = 2 v(x, t) - x / (t + h)
  adjoint    the lean adjoint through the *base* network, from a_K = -grad r(x_K) down,
                 a_k = a_{k+1} + h (d b_base / d x)^T a_{k+1}     (a forward and a vjp of v_base each step)
  regress    L of the K steps as one batch of L*B rows; gradient with respect to the parameters of v_ft of
                 sum_k | 2 / sigma_k (v_ft - v_base) + sigma_k a_k |^2 / (L B)
  optimiser  one Adam step

with h = 1/K, t_k = k h, x_1 = data and sigma^2(t) = 2 (1 - t + h) / (t + h). The network is [x, t] -> `depth`
hidden layers with SiLU -> x. All arithmetic is float32.

Modes, from the plain program to the fastest one we know how to write:
  eager    autograd throughout
  lean     the base network's vjp written by hand (no tape in the adjoint), buffers reused through `out=`
  script   the loops of `lean` in TorchScript: no Python between the steps
  compile  torch.compile (Inductor, C++ wrapper) over graphs of `--unroll` steps: pointwise passes
           fused, no Python between the steps; needs g++ and the Python headers
A run prints one JSON object. `--serve` answers lines on stdin instead: "run" performs one timed iteration and
prints "seconds sample adjoint regress optimiser", "info" prints versions and settings as JSON, so that a driver
can interleave several programs.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time


def options():
    ap = argparse.ArgumentParser(description="Adjoint matching of an MLP velocity network in PyTorch")
    ap.add_argument("--hidden", type=int, default=64)
    ap.add_argument("--depth", type=int, default=3, help="hidden layers")
    ap.add_argument("--dim", type=int, default=2)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--steps", type=int, default=40, help="K, steps of a trajectory")
    ap.add_argument("--loss-steps", type=int, default=20, help="L, steps that enter the regression")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--iters", type=int, default=50, help="timed iterations of a run without --serve")
    ap.add_argument("--warmup", type=int, default=10)
    ap.add_argument("--lr", type=float, default=1e-4)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--mode", choices=["eager", "lean", "script", "compile"], default="eager")
    ap.add_argument("--adam", choices=["single", "foreach", "fused"], default="foreach")
    ap.add_argument(
        "--unroll", type=int, default=10, help="compile: steps in one graph, a divisor of --steps"
    )
    ap.add_argument(
        "--precision",
        choices=["highest", "high", "medium"],
        default="highest",
        help="torch.set_float32_matmul_precision; anything below highest is not float32 arithmetic",
    )
    ap.add_argument(
        "--clock",
        choices=["auto", "cpu", "wall"],
        default="auto",
        help="auto: process CPU time with one thread (preemption does not count), else wall clock",
    )
    ap.add_argument("--json", metavar="FILE", help="write the result here as well")
    ap.add_argument("--serve", action="store_true")
    ap.add_argument(
        "--check",
        action="store_true",
        help="compare this mode's adjoints and gradient with mode eager on the same noise, then exit",
    )
    cfg = ap.parse_args()
    if cfg.loss_steps > cfg.steps:
        ap.error("--loss-steps must not exceed --steps")
    if cfg.mode == "compile" and cfg.steps % cfg.unroll:
        ap.error("--unroll must divide --steps")
    return cfg


cfg = options()
# Thread counts must be in the environment before the BLAS library is loaded.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, str(cfg.threads))

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from typing import List  # noqa: E402

torch.set_num_threads(cfg.threads)
torch.manual_seed(cfg.seed)
if hasattr(torch, "set_float32_matmul_precision"):
    torch.set_float32_matmul_precision(cfg.precision)

B, D, K, L = cfg.batch, cfg.dim, cfg.steps, cfg.loss_steps
h = 1.0 / K
times = [k * h for k in range(K)]
sigmas = [math.sqrt(2 * (1 - t + h) / (t + h)) for t in times]
time_of = torch.tensor(times)
sigma_of = torch.tensor(sigmas)


class VelocityMLP(nn.Module):
    """[x, t] of shape [rows, dim + 1] -> velocity [rows, dim]."""

    def __init__(self, dim, hidden, depth):
        super().__init__()
        widths = [dim + 1] + [hidden] * depth
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:])])
        self.out = nn.Linear(hidden, dim)

    def forward(self, xt):
        for layer in self.hidden:
            xt = F.silu(layer(xt))
        return self.out(xt)

    def layers(self):
        return list(self.hidden) + [self.out]


base = VelocityMLP(D, cfg.hidden, cfg.depth)
tuned = VelocityMLP(D, cfg.hidden, cfg.depth)
tuned.load_state_dict(base.state_dict())
base.requires_grad_(False)


def grad_reward(x):
    g = torch.zeros_like(x)
    g[:, 0] = 2.0
    return g


def with_time(x, t: float):
    return torch.cat([x, torch.full((x.shape[0], 1), t)], 1)


def choose_steps():
    """The last quarter of the steps always, the others uniformly without replacement."""
    last = min(K // 4, L)
    return torch.cat([torch.randperm(K - last)[: L - last], torch.arange(K - last, K)])


# ---- eager -------------------------------------------------------------------------------------------------


class Eager:
    """The program a PyTorch user would write."""

    def sample(self, x, noise):
        xs = torch.empty(K + 1, B, D)
        xs[0] = x
        with torch.no_grad():
            for k in range(K):
                v = tuned(with_time(x, times[k]))
                x = x + h * (2 * v - x / (times[k] + h)) + (sigmas[k] * math.sqrt(h)) * noise[k]
                xs[k + 1] = x
        return xs

    def adjoint(self, xs):
        velocity, adjoints = torch.empty(K, B, D), torch.empty(K, B, D)
        a = -grad_reward(xs[K])
        for k in reversed(range(K)):
            x = xs[k].detach().requires_grad_(True)
            v = base(with_time(x, times[k]))
            (g,) = torch.autograd.grad(v, x, a)
            a = a + h * (2 * g - a / (times[k] + h))
            velocity[k] = v.detach()
            adjoints[k] = a
        return velocity, adjoints

    def loss(self, xt, target_velocity, target_adjoint, s):
        v = tuned(xt).view(L, B, D)
        return (((2 / s) * (v - target_velocity) + s * target_adjoint) ** 2).sum(-1).mean()

    def regress(self, xs, velocity, adjoints, chosen):
        t = time_of[chosen][:, None, None].expand(-1, B, 1)
        xt = torch.cat([xs[chosen], t], 2).view(-1, D + 1)
        loss = self.loss(xt, velocity[chosen], adjoints[chosen], sigma_of[chosen][:, None, None])
        for p in tuned.parameters():
            p.grad = None
        loss.backward()
        return loss


# ---- lean and script ---------------------------------------------------------------------------------------


def sample_loop(
    weights: List[Tensor],
    biases: List[Tensor],
    xs: Tensor,
    noise: Tensor,
    times: List[float],
    drift: List[float],
    scale: List[float],
    h: float,
) -> None:
    """Fills xs[1:] from xs[0]. weights: transposed, [in, out]; xs [K+1, B, D]; scale[k] = sqrt(h) sigma_k."""
    z = torch.empty(xs.shape[1], xs.shape[2] + 1)
    x_part = z[:, :-1]
    t_part = z[:, -1]
    n = len(weights) - 1
    for k in range(len(times)):
        x = xs[k]
        x_part.copy_(x)
        t_part.fill_(times[k])
        y = z
        for i in range(n):
            y = torch.nn.functional.silu(torch.addmm(biases[i], y, weights[i]), inplace=True)
        v = torch.addmm(biases[n], y, weights[n])
        torch.add(x * drift[k], v, alpha=2 * h, out=xs[k + 1]).add_(noise[k], alpha=scale[k])


def adjoint_loop(
    weights: List[Tensor],
    biases: List[Tensor],
    back: List[Tensor],
    xs: Tensor,
    a: Tensor,
    velocity: Tensor,
    adjoints: Tensor,
    times: List[float],
    drift: List[float],
    h: float,
) -> None:
    """Fills velocity and adjoints [K, B, D]. back: the weights as [out, in], for the vjp."""
    z = torch.empty(xs.shape[1], xs.shape[2] + 1)
    x_part = z[:, :-1]
    t_part = z[:, -1]
    n = len(weights) - 1
    dim = xs.shape[2]
    for j in range(len(times)):
        k = len(times) - 1 - j
        x_part.copy_(xs[k])
        t_part.fill_(times[k])
        y = z
        pre: List[Tensor] = []
        for i in range(n):
            u = torch.addmm(biases[i], y, weights[i])
            pre.append(u)
            y = torch.nn.functional.silu(u)
        torch.addmm(biases[n], y, weights[n], out=velocity[k])
        g = torch.mm(a, back[n])
        for i in range(n):
            g = torch.mm(torch.ops.aten.silu_backward(g, pre[n - 1 - i]), back[n - 1 - i])
        a = torch.add(a * drift[k], g[:, :dim], alpha=2 * h, out=adjoints[k])


drifts = [1 - h / (t + h) for t in times]
scales = [s * math.sqrt(h) for s in sigmas]


class Lean(Eager):
    """Loops without a tape. Weights are transposed once for each update: MKL and OpenBLAS are faster so."""

    def __init__(self):
        self.sample_loop, self.adjoint_loop = sample_loop, adjoint_loop
        self.base_weights = [p.weight.t().contiguous() for p in base.layers()]
        self.velocity, self.adjoints = torch.empty(K, B, D), torch.empty(K, B, D)
        self.xs = torch.empty(K + 1, B, D)

    def sample(self, x, noise):
        with torch.no_grad():
            self.xs[0] = x
            self.sample_loop(
                [p.weight.detach().t().contiguous() for p in tuned.layers()],
                [p.bias.detach() for p in tuned.layers()],
                self.xs,
                noise,
                times,
                drifts,
                scales,
                h,
            )
        return self.xs

    def adjoint(self, xs):
        with torch.no_grad():
            self.adjoint_loop(
                self.base_weights,
                [p.bias for p in base.layers()],
                [p.weight for p in base.layers()],
                xs,
                -grad_reward(xs[K]),
                self.velocity,
                self.adjoints,
                times,
                drifts,
                h,
            )
        return self.velocity, self.adjoints


class Script(Lean):
    def __init__(self):
        super().__init__()
        self.sample_loop, self.adjoint_loop = torch.jit.script(sample_loop), torch.jit.script(adjoint_loop)


# ---- compile -----------------------------------------------------------------------------------------------


def narrow_in(x, t, transposed, bias):
    """[x, t] transposed + bias of a layer with few inputs, as sums that Inductor fuses with what follows."""
    u = bias + t * transposed[-1]
    for i in range(transposed.shape[0] - 1):
        u = u + x[:, i : i + 1] * transposed[i]
    return u


def narrow_out(y, weight):
    """y weight^T for a weight of few rows, as reductions that Inductor fuses with the activation before it."""
    return torch.stack([(y * weight[i]).sum(-1) for i in range(weight.shape[0])], 1)


def narrow_back(g, weight):
    """g weight for a g of few columns, fused likewise."""
    u = g[:, :1] * weight[0]
    for i in range(1, weight.shape[0]):
        u = u + g[:, i : i + 1] * weight[i]
    return u


def forward_segment(x, noise, t, scale, weights, biases, transposed):
    """`unroll` Euler-Maruyama steps. weights [out, in], transposed [in, out]: for the wide layers."""
    n, xs = len(weights) - 1, []
    for k in range(cfg.unroll):
        y = F.silu(narrow_in(x, t[k], transposed[0], biases[0]))
        for i in range(1, n):
            y = F.silu(torch.addmm(biases[i], y, transposed[i]))
        v = narrow_out(y, weights[n]) + biases[n]
        x = x + h * (2 * v - x / (t[k] + h)) + scale[k] * noise[k]
        xs.append(x)
    return torch.stack(xs)


def adjoint_segment(xs, a, t, weights, biases, transposed):
    """`unroll` steps of the lean adjoint, last step first, the base network's vjp written out."""
    n, velocity, adjoints = len(weights) - 1, [], []
    for k in reversed(range(cfg.unroll)):
        slopes, y = [], None
        for i in range(n):
            u = (
                torch.addmm(biases[i], y, transposed[i])
                if i
                else narrow_in(xs[k], t[k], transposed[0], biases[0])
            )
            s = torch.sigmoid(u)
            y = u * s
            slopes.append(s * (1 + u - y))
        velocity.append(narrow_out(y, weights[n]) + biases[n])
        g = narrow_back(a, weights[n]) * slopes[n - 1]
        for i in reversed(range(1, n)):
            g = (g @ weights[i]) * slopes[i - 1]
        g = narrow_out(g, transposed[0][:-1])
        a = a + h * (2 * g - a / (t[k] + h))
        adjoints.append(a)
    return torch.stack(velocity[::-1]), torch.stack(adjoints[::-1])


class Compile(Eager):
    def __init__(self):
        import torch._inductor.config as inductor

        inductor.cpp_wrapper = True
        inductor.fallback_random = True

        def loss(xs, velocity, adjoints, chosen):
            t = time_of[chosen][:, None, None].expand(-1, B, 1)
            xt = torch.cat([xs[chosen], t], 2).view(-1, D + 1)
            return self.loss(xt, velocity[chosen], adjoints[chosen], sigma_of[chosen][:, None, None])

        self.forward_segment = torch.compile(forward_segment, dynamic=False)
        self.adjoint_segment = torch.compile(adjoint_segment, dynamic=False)
        self.compiled_loss = torch.compile(loss, dynamic=False)
        self.noise_scale = torch.tensor(scales)
        self.base_weights = self.weights_of(base)

    @staticmethod
    def weights_of(net):
        weights = [p.weight.detach() for p in net.layers()]
        return weights, [p.bias.detach() for p in net.layers()], [w.t().contiguous() for w in weights]

    def sample(self, x, noise):
        with torch.no_grad():
            parts, weights = [x[None]], self.weights_of(tuned)
            for k in range(0, K, cfg.unroll):
                e = k + cfg.unroll
                parts.append(
                    self.forward_segment(x, noise[k:e], time_of[k:e], self.noise_scale[k:e], *weights)
                )
                x = parts[-1][-1]
            return torch.cat(parts)

    def adjoint(self, xs):
        with torch.no_grad():
            velocity, adjoints, a = [], [], -grad_reward(xs[K])
            for k in reversed(range(0, K, cfg.unroll)):
                e = k + cfg.unroll
                v, parts = self.adjoint_segment(xs[k:e], a, time_of[k:e], *self.base_weights)
                a = parts[0]
                velocity.append(v)
                adjoints.append(parts)
            return torch.cat(velocity[::-1]), torch.cat(adjoints[::-1])

    def regress(self, xs, velocity, adjoints, chosen):
        loss = self.compiled_loss(xs, velocity, adjoints, chosen)
        for p in tuned.parameters():
            p.grad = None
        loss.backward()
        return loss


# ---- running -----------------------------------------------------------------------------------------------

program = {"eager": Eager, "lean": Lean, "script": Script, "compile": Compile}[cfg.mode]()
adam_options = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[
    cfg.adam
]
optimiser = torch.optim.Adam(tuned.parameters(), cfg.lr, **adam_options)
use_cpu_clock = cfg.clock == "cpu" or (cfg.clock == "auto" and cfg.threads == 1)
clock = time.process_time if use_cpu_clock else time.perf_counter


def iteration():
    """Performs one iteration; returns [total, sample, adjoint, regress, optimiser] in seconds and the loss."""
    c = [clock()]
    xs = program.sample(torch.randn(B, D), torch.randn(K, B, D))
    c.append(clock())
    velocity, adjoints = program.adjoint(xs)
    c.append(clock())
    loss = program.regress(xs, velocity, adjoints, choose_steps())
    c.append(clock())
    optimiser.step()
    c.append(clock())
    return [c[-1] - c[0]] + [b - a for a, b in zip(c[:-1], c[1:])], loss


def information():
    capability = getattr(getattr(torch.backends, "cpu", None), "get_cpu_capability", lambda: "unknown")()
    settings = {
        k: os.environ[k]
        for k in (
            "ATEN_CPU_CAPABILITY",
            "GLIBC_TUNABLES",
            "KMP_AFFINITY",
            "KMP_BLOCKTIME",
            "OMP_WAIT_POLICY",
            "GOMP_SPINCOUNT",
        )
        if k in os.environ
    }
    if "LD_PRELOAD" in os.environ:  # file names only: the folders differ from machine to machine
        settings["LD_PRELOAD"] = [
            os.path.basename(p) for p in os.environ["LD_PRELOAD"].replace(":", " ").split()
        ]
    return {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpu_capability": capability,
        "blas": "mkl" if torch.backends.mkl.is_available() else "openblas or other",
        "mode": cfg.mode,
        "options": {k: v for k, v in vars(cfg).items() if k not in ("json", "serve", "check")},
        "environment": settings,
        "clock": "process cpu" if use_cpu_clock else "wall",
    }


def check():
    """Largest difference from mode eager, relative to the largest entry, same noise and same steps."""
    plain, x, noise, chosen = Eager(), torch.randn(B, D), torch.randn(K, B, D), choose_steps()
    results = []
    for p in (plain, program):
        xs = p.sample(x, noise).clone()
        velocity, adjoints = (q.clone() for q in p.adjoint(xs))
        p.regress(xs, velocity, adjoints, chosen)
        results.append([xs, velocity, adjoints] + [q.grad.clone() for q in tuned.parameters()])
    names = ["trajectory", "base velocity", "adjoint"] + [
        "gradient of " + n for n, _ in tuned.named_parameters()
    ]
    worst = {n: ((a - b).abs().max() / a.abs().max()).item() for n, a, b in zip(names, *results)}
    print(json.dumps(worst, indent=1))
    if not max(worst.values()) < 1e-3:  # float32 reordering through 40 steps is some 1e-5
        sys.exit("mode " + cfg.mode + " does not agree with mode eager")


def serve():
    for line in sys.stdin:
        command = line.strip()
        if command == "run":
            print(" ".join(f"{s:.9f}" for s in iteration()[0]), flush=True)
        elif command == "info":
            print(json.dumps(information()), flush=True)
        elif command == "quit":
            return
        elif command:
            sys.exit(f'unknown command "{command}"; expected run, info or quit')


def main():
    if cfg.check:
        return check()
    if cfg.serve:
        return serve()
    for _ in range(cfg.warmup):
        iteration()
    seconds, losses = zip(*[(s, l.item()) for s, l in (iteration() for _ in range(cfg.iters))])
    columns = ["total", "sample", "adjoint", "regress", "optimiser"]
    result = dict(
        information(),
        median_ms={n: statistics.median(c) * 1e3 for n, c in zip(columns, zip(*seconds))},
        min_ms={n: min(c) * 1e3 for n, c in zip(columns, zip(*seconds))},
        loss=losses[-1],
    )
    print(json.dumps(result, indent=1))
    if cfg.json:
        with open(cfg.json, "w") as f:
            json.dump(result, f, indent=1)


if __name__ == "__main__":
    main()
