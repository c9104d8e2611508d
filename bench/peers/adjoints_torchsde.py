"""Gradients of stochastic differential equations with torchsde: a peer of Costate's bench/adjoints.

Methods (problems, noise and protocol: adjoint_problems.py):
  loop_euler                plain PyTorch: a Python loop of Euler-Maruyama steps, autograd through it (no torchsde)
  backprop_euler            sdeint, Ito, autograd through the solver
  backprop_reversible_heun  sdeint, Stratonovich, autograd through the solver
  adjoint_reversible_heun   sdeint_adjoint with adjoint_reversible_heun: exact up to rounding, constant memory in K
  adjoint_midpoint          sdeint_adjoint, the continuous adjoint solved backwards by the same method
  adjoint_heun              the same with Heun's method
Noise: torchsde's BrownianInterval, its default and the one that its adjoints are made for; the loop draws increments.
difference_from_backprop is the distance of the gradient from that of autograd through the same solver on the same path.
"""

import adjoint_problems as problems

METHODS = [
    "loop_euler",
    "backprop_euler",
    "backprop_reversible_heun",
    "adjoint_reversible_heun",
    "adjoint_midpoint",
    "adjoint_heun",
]
cfg = problems.options(__doc__.split("\n")[0], METHODS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import torchsde  # noqa: E402

torch.set_num_threads(cfg.threads)
DTYPE = torch.float32 if cfg.precision == "f32" else torch.float64
NUMPY = np.float32 if cfg.precision == "f32" else np.float64


class Equation(nn.Module):
    noise_type = "diagonal"

    def __init__(self, calculus):
        super().__init__()
        self.sde_type = calculus
        self.evaluations = 0
        if cfg.problem == "ou":
            self.theta = nn.Parameter(torch.tensor(problems.THETA, dtype=DTYPE))
        else:
            self.layers = nn.ModuleList()
            for w, b in problems.weights(NUMPY):
                layer = nn.Linear(w.shape[1], w.shape[0], dtype=DTYPE)
                layer.weight.data.copy_(torch.from_numpy(w)), layer.bias.data.copy_(torch.from_numpy(b))
                self.layers.append(layer)

    def f(self, t, x):
        self.evaluations += 1
        if cfg.problem == "ou":
            return -self.theta * x
        y = torch.cat([x, t.to(x).expand(x.shape[0], 1)], 1)
        for layer in self.layers[:-1]:
            y = F.silu(layer(y))
        return self.layers[-1](y)

    def g(self, t, x):
        return torch.full_like(x, problems.SIGMA)


def solve(equation, x0, steps, seed, method, adjoint):
    h = 1.0 / steps
    if method == "loop":
        generator, x = torch.Generator().manual_seed(seed), x0
        for k in range(steps):
            noise = torch.randn(x.shape, dtype=DTYPE, generator=generator)
            x = x + h * equation.f(torch.tensor(k * h, dtype=DTYPE), x) + problems.SIGMA * h**0.5 * noise
        return x
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)  # in float32 the sum of the steps misses 1, which costs a step
    path = torchsde.BrownianInterval(t0=0.0, t1=1.0, size=tuple(x0.shape), dtype=DTYPE, entropy=seed, dt=h)
    if not adjoint:
        return torchsde.sdeint(equation, x0, t, bm=path, method=method, dt=h)[-1]
    backward = "adjoint_reversible_heun" if method == "reversible_heun" else method
    return torchsde.sdeint_adjoint(equation, x0, t, bm=path, method=method, adjoint_method=backward, dt=h)[-1]


def make(batch, steps, name):
    """gradient(seed) of a method."""
    kind, method = name.split("_", 1)
    calculus = "ito" if method == "euler" else "stratonovich"
    equation = Equation(calculus)
    start = torch.from_numpy(problems.initial(NUMPY, batch))

    def gradient(seed):
        x0 = start.clone().requires_grad_(True)
        for p in equation.parameters():
            p.grad = None
        x = solve(equation, x0, steps, seed, "loop" if kind == "loop" else method, kind == "adjoint")
        loss = (x * x).mean()
        loss.backward()
        return loss.item(), x0.grad.numpy(), [p.grad.numpy() for p in equation.parameters()]

    return gradient, equation


def main():
    steps = problems.STEPS[cfg.problem]
    make(4, 3, cfg.method)[0](0)  # a tiny problem: what libraries allocate once
    facts = {"library": f"torchsde {torchsde.__version__}, torch {torch.__version__}"}
    if cfg.method.startswith("adjoint"):  # on a batch of 16, before memory is measured
        through = cfg.method.replace("adjoint", "backprop")
        ours, other = make(16, steps, cfg.method)[0](7), make(16, steps, through)[0](7)
        facts["difference_from_backprop"] = problems.relative_difference(ours[1:], other[1:])
    gradient, equation = make(problems.BATCH, steps, cfg.method)

    def counted(seed):
        equation.evaluations = 0
        result = gradient(seed)
        facts["drift_evaluations"] = equation.evaluations
        return result

    problems.serve(cfg, counted, facts)


if __name__ == "__main__":
    main()
