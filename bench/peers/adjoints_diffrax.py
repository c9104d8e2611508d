"""Gradients of stochastic differential equations with diffrax on the CPU: a peer of Costate's bench/adjoints.

Methods (problems, noise and protocol: adjoint_problems.py), each one jitted function of (seed, x_0, parameters):
  checkpoint_euler            RecursiveCheckpointAdjoint (the default), Euler
  checkpoint_reversible_heun  the same, ReversibleHeun
  direct_euler                DirectAdjoint: autodiff through a bounded loop
  backsolve_heun              BacksolveAdjoint, Heun: the continuous adjoint solved backwards
  scan_euler                  plain JAX: lax.scan of Euler-Maruyama steps, reverse-mode through it (no diffrax)
Noise: VirtualBrownianTree with tolerance h/2 (UnsafeBrownianPath cannot be differentiated in reverse mode); the scan draws
increments. Compilation is excluded and reported. temporary_bytes is XLA's own count of the compiled function.
BacksolveAdjoint with ReversibleHeun is left out: compiling it took more than three minutes (diffrax 0.7.2, jax 0.10.2).
difference_from_backprop is the distance of backsolve's gradient from autodiff through the same solver on the same path.
"""

import os
import time

import adjoint_problems as problems

METHODS = [
    "scan_euler",
    "checkpoint_euler",
    "checkpoint_reversible_heun",
    "direct_euler",
    "backsolve_heun",
]
cfg = problems.options(__doc__.split("\n")[0], METHODS)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1" if cfg.precision == "f64" else "0")

import diffrax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import lineax  # noqa: E402
import numpy as np  # noqa: E402

NUMPY = np.float32 if cfg.precision == "f32" else np.float64


def drift(t, x, parameters):
    if cfg.problem == "ou":
        return -parameters[0] * x
    y = jnp.concatenate([x, jnp.full((x.shape[0], 1), t, x.dtype)], 1)
    for w, b in zip(parameters[0:-2:2], parameters[1:-2:2]):
        y = jax.nn.silu(y @ w.T + b)
    return y @ parameters[-2].T + parameters[-1]


def initial_parameters():
    if cfg.problem == "ou":
        return [jnp.asarray(problems.THETA, NUMPY)]
    return [jnp.asarray(p) for layer in problems.weights(NUMPY) for p in layer]


def noise_term(path):
    """sigma dB, element by element."""
    return diffrax.ControlTerm(lambda t, x, args: lineax.DiagonalLinearOperator(jnp.full_like(x, problems.SIGMA)), path)


def terminal(kind, method, steps, key, x0, parameters):
    h = 1.0 / steps
    if kind == "scan":

        def step(x, k):
            noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            return x + h * drift(k * h, x, parameters) + problems.SIGMA * h**0.5 * noise, None

        return jax.lax.scan(step, x0, jnp.arange(steps))[0], steps
    shape = jax.ShapeDtypeStruct(x0.shape, x0.dtype)
    path = diffrax.VirtualBrownianTree(0.0, 1.0, tol=h / 2, shape=shape, key=key)
    solver = {"euler": diffrax.Euler, "heun": diffrax.Heun, "reversible_heun": diffrax.ReversibleHeun}[method]()
    adjoint = {
        "checkpoint": diffrax.RecursiveCheckpointAdjoint,
        "direct": diffrax.DirectAdjoint,
        "backsolve": diffrax.BacksolveAdjoint,
    }[kind]()
    solution = diffrax.diffeqsolve(
        diffrax.MultiTerm(diffrax.ODETerm(drift), noise_term(path)),
        solver,
        t0=0.0,
        t1=1.0,
        dt0=h,
        y0=x0,
        args=parameters,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=steps + 1,  # one more, should rounding leave a rest before t = 1
        adjoint=adjoint,
    )
    return solution.ys[-1], solution.stats["num_steps"]


def make(batch, steps, name):
    """gradient(seed) of a method, compiled; seconds of compilation; XLA's bytes."""
    kind, method = name.split("_", 1)
    x0, parameters = jnp.asarray(problems.initial(NUMPY, batch)), initial_parameters()

    def loss(x0, parameters, seed):
        x, taken = terminal(kind, method, steps, jax.random.key(seed), x0, parameters)
        return jnp.mean(x * x), taken

    start = time.perf_counter()
    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(x0, parameters, 0).compile()
    seconds = time.perf_counter() - start
    memory = function.memory_analysis()

    def gradient(seed):
        (value, taken), (g0, gp) = jax.block_until_ready(function(x0, parameters, seed))
        if int(taken) != steps:
            raise RuntimeError(f"{name} took {int(taken)} steps, expected {steps}")
        return float(value), np.asarray(g0), [np.asarray(p) for p in gp]

    return gradient, seconds, getattr(memory, "temp_size_in_bytes", None)


def main():
    steps = problems.STEPS[cfg.problem]
    facts = {"library": f"diffrax {diffrax.__version__}, jax {jax.__version__}"}
    kind, method = cfg.method.split("_", 1)
    if kind == "backsolve":  # on a batch of 16
        ours, other = make(16, steps, cfg.method)[0](7), make(16, steps, "checkpoint_" + method)[0](7)
        facts["difference_from_backprop"] = problems.relative_difference(ours[1:], other[1:])
    make(4, 3, cfg.method)[0](0)
    gradient, facts["compile_seconds"], facts["temporary_bytes"] = make(problems.BATCH, steps, cfg.method)
    problems.serve(cfg, gradient, facts)


if __name__ == "__main__":
    main()
