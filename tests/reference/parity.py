"""What the scripts that make parity fixtures share: parameters by a rule instead of stored numbers, inputs by a
rule, and a summary of every gradient.

Fill rule: keys in ascending order, number j; flat element i (in the file's order of axes: OIHW) is
0.1 sin(0.37 i + 1.3 j), plus 1 where the key contains "norm" and ends with "weight", rounded to float32.
Input: x[i] = float32(sin(0.11 i)). Loss: sum_i cos(0.05 i) y[i]. All else is float64.
"""
import math

import numpy
import torch
from safetensors.numpy import save_file

torch.set_default_dtype(torch.float64)


def filled(shape, key, j):
    i = numpy.arange(int(numpy.prod(shape)), dtype=numpy.float64)
    v = 0.1 * numpy.sin(0.37 * i + 1.3 * j)
    if "norm" in key and key.endswith("weight"):
        v = v + 1.0
    return torch.from_numpy(v.astype(numpy.float32).astype(numpy.float64).reshape(tuple(shape)))


def fill(shapes):
    """{key: shape} -> {key: values}"""
    return {key: filled(shapes[key], key, j) for j, key in enumerate(sorted(shapes))}


def input_of(shape):
    i = numpy.arange(int(numpy.prod(shape)), dtype=numpy.float64)
    x = numpy.sin(0.11 * i).astype(numpy.float32).astype(numpy.float64).reshape(tuple(shape))
    return torch.from_numpy(x).requires_grad_()


def loss_of(y):
    return (torch.cos(0.05 * torch.arange(y.numel())) * y.reshape(-1)).sum()


def summary(gradient):
    """sum, sum_i cos(0.3 i + 0.7) g_i, norm, largest |g|, first, middle and last element, then the shape."""
    g = gradient.detach().reshape(-1)
    weight = torch.cos(0.3 * torch.arange(g.numel()) + 0.7)
    head = [g.sum(), (weight * g).sum(), g.norm(), g.abs().max(), g[0], g[g.numel() // 2], g[-1]]
    return numpy.array([float(v) for v in head] + list(gradient.shape), dtype=numpy.float64)


def write(path, y, dx, gradients, frozen):
    """`gradients` {key: tensor}; `frozen` {key: tensor}: what a state dict holds beside parameters."""
    tensors = {"y": y.detach().numpy(), "dx": dx.detach().numpy()}
    tensors |= {"gradient." + key: summary(g) for key, g in gradients.items()}
    tensors |= {"frozen." + key: numpy.array(v.shape, dtype=numpy.float64) for key, v in frozen.items()}
    save_file({k: numpy.ascontiguousarray(v) for k, v in tensors.items()}, path)
    total = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    print(f"{path.name}: {len(gradients)} parameters, y {tuple(y.shape)} norm {float(y.detach().norm()):.12f}, "
          f"dx norm {float(dx.norm()):.12f}, gradients {total:.12f}")
    return total


def near(found, expected, what, tolerance=1e-9):
    found, expected = numpy.atleast_1d(found), numpy.atleast_1d(expected)
    if not numpy.allclose(found, expected, rtol=0, atol=tolerance * max(1.0, float(numpy.abs(expected).max()))):
        raise SystemExit(f"{what}: {found}, expected {expected}")
