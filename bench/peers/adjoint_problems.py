"""What the peers of bench/adjoints share: the problems, the exact answers, the clock, the memory, the protocol.

Problems: forward and gradient of the mean of X_T^2 with respect to x_0 and all parameters, T = 1, batch 256, d = 32,
x_0[i, j] = sin(0.1 i + 0.7 j), K uniform steps:
  ou          dX = -theta X dt + 0.5 dB, theta = 1 (a scalar, learned), K = 200
  neural_sde  dX = f(X, t) dt + 0.5 dB with f: [x, t] (33) -> 64 -> 64 -> 32, SiLU, K = 100; weight (out, in) of each
              layer w[i, j] = 0.5 sin(1 + 0.3 i + 0.7 j)/sqrt(in), bias 0, all learned
Noise is new in every gradient; libraries differ in theirs.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import statistics
import sys
import time

import numpy as np

BATCH, DIM, SIGMA, THETA = 256, 32, 0.5, 1.0
STEPS = {"ou": 200, "neural_sde": 100}
LAYERS = [(64, DIM + 1), (64, 64), (DIM, 64)]


def options(description, methods, argv=None):
    ap = argparse.ArgumentParser(description=description)
    ap.add_argument("--problem", choices=list(STEPS), default="ou")
    ap.add_argument("--method", choices=methods, default=methods[0])
    ap.add_argument("--precision", choices=["f32", "f64"], default="f32")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--rounds", type=int, default=10)
    ap.add_argument("--serve", action="store_true", help='answer lines "run" and "info" on stdin')
    ap.add_argument("--list", action="store_true", help="print the methods as JSON, then exit")
    cfg = ap.parse_args(argv)
    if cfg.list:
        print(json.dumps(methods))
        sys.exit()
    # Before any library starts its threads.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, str(cfg.threads))
    if hasattr(os, "sched_setaffinity"):  # the only setting that every library's pool obeys
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: cfg.threads])
    return cfg


def initial(dtype, batch=BATCH):
    i, j = np.arange(batch)[:, None], np.arange(DIM)[None, :]
    return np.sin(0.1 * i + 0.7 * j).astype(dtype)


def weights(dtype):
    """[(weight (out, in), bias (out))] of the layers."""
    layers = []
    for out, inputs in LAYERS:
        i, j = np.arange(out)[:, None], np.arange(inputs)[None, :]
        w = 0.5 * np.sin(1 + 0.3 * i + 0.7 * j) / math.sqrt(inputs)
        layers.append((w.astype(dtype), np.zeros(out, dtype)))
    return layers


def exact_theta_gradient():
    """d/dtheta of E mean X_T^2 = m e^{-2 theta} + sigma^2 (1 - e^{-2 theta})/(2 theta), m the mean of x_0^2; T = 1."""
    m, e = float((initial(np.float64) ** 2).mean()), math.exp(-2 * THETA)
    return -2 * m * e + SIGMA**2 * (e / THETA - (1 - e) / (2 * THETA**2))


# ---- memory ------------------------------------------------------------------------------------------------


def status_bytes(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    return 0


def peak_of(run):
    """Bytes by which the resident memory of this process grew at the highest point of run().

    Free memory is given back first (malloc_trim) and the high-water mark starts again (/proc/self/clear_refs, proc(5));
    where that cannot be written the answer is None.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass
    before = status_bytes("VmRSS")
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        run()
        return None
    run()
    return max(status_bytes("VmHWM") - before, 0)


# ---- protocol ----------------------------------------------------------------------------------------------


def serve(cfg, gradient, facts):
    """Answers "run" with seconds and "info" with JSON, or measures --rounds gradients and prints one line of JSON.

    gradient(seed) -> (loss, gradient of x_0, [gradients of parameters]) as numpy arrays. `facts` is what else goes into
    "info". The first gradient of the process is the one whose memory is measured.
    """
    clock = time.process_time if cfg.threads == 1 else time.perf_counter
    state = {"seed": 0, "theta": [], "seconds": []}

    def one():
        start = clock()
        loss, x0, parameters = gradient(state["seed"])
        state["seconds"].append(clock() - start)
        state["seed"] += 1
        state["last"] = {
            "loss": float(loss),
            "gradient_norm_x0": float(np.linalg.norm(x0)),
            "gradient_norm_parameters": math.sqrt(sum(float((np.asarray(p) ** 2).sum()) for p in parameters)),
        }
        if cfg.problem == "ou":
            state["theta"].append(float(np.asarray(parameters[0]).reshape(-1)[0]))

    peak = peak_of(one)
    if facts.get("first_is_warm_up", True):
        state["seconds"].pop()

    def information():
        out = dict(facts, method=cfg.method, problem=cfg.problem, precision=cfg.precision, threads=cfg.threads)
        out.pop("first_is_warm_up", None)
        out.update(
            state["last"],
            peak_resident_bytes=peak,
            ru_maxrss_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )
        if len(state["theta"]) > 1:  # the mean over gradients with noise of their own
            mean, exact = statistics.mean(state["theta"]), exact_theta_gradient()
            out["theta_gradient"] = mean
            out["theta_standard_error"] = statistics.stdev(state["theta"]) / math.sqrt(len(state["theta"]))
            out["theta_exact"] = exact
            out["theta_relative_error"] = abs(mean - exact) / abs(exact)
        return out

    if not cfg.serve:
        for _ in range(cfg.rounds):
            one()
        print(json.dumps(dict(information(), seconds=state["seconds"])))
        return
    for line in sys.stdin:
        command = line.strip()
        if command == "run":
            one()
            print(f"{state['seconds'][-1]:.9f}", flush=True)
        elif command == "info":
            print(json.dumps(information()), flush=True)
        elif command == "quit":
            return
        elif command:
            sys.exit(f'unknown command "{command}"; expected run, info or quit')


def relative_difference(a, b):
    """Of two gradients (x_0, [parameters]): the largest over its tensors of |a - b|/|b|."""
    pairs = [(a[0], b[0]), *zip(a[1], b[1])]
    return max(float(np.linalg.norm(p - q) / (np.linalg.norm(q) + 1e-300)) for p, q in pairs)
