#!/usr/bin/env python3
"""The three passes of a 3x3 convolution in PyTorch, in every way that its CPU build offers.

Started as  conv_torch.py --threads T ; answers lines "case pass calls mode" on stdin with seconds a call, the line
"modes" with the modes, and "info" with a description. Modes:
  nchw, nhwc   oneDNN with images in either order of axes
  nnpack       oneDNN turned off: NNPACK's Winograd F(6x6, 3x3) forward, where PyTorch was built with it
One thread is timed by the process CPU clock, more by the wall clock.
"""
import argparse
import json
import sys
import time

import torch

CASES = {"64x28": (16, 64, 28), "128x14": (16, 128, 14), "256x7": (16, 256, 7)}


def nnpack_offered():
    try:
        import torch.backends.nnpack

        return torch.backends.nnpack.is_available()
    except ImportError:
        return False


def workload(case, mode, which):
    n, channels, side = CASES[case]
    torch.manual_seed(1)
    order = torch.channels_last if mode == "nhwc" else torch.contiguous_format
    x, g = (torch.randn(n, channels, side, side).to(memory_format=order) for _ in range(2))
    w = torch.randn(channels, channels, 3, 3).to(memory_format=order)
    if which == "forward":
        return lambda: torch.conv2d(x, w, padding=1)
    mask = [which == "data", which == "weight", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--threads", type=int, default=1)
    cfg = ap.parse_args()
    torch.set_num_threads(cfg.threads)
    torch.set_grad_enabled(False)
    clock = time.process_time if cfg.threads == 1 else time.perf_counter
    ready = {}
    for line in sys.stdin:
        words = line.split()
        if words == ["modes"]:
            answer = " ".join(["nchw", "nhwc"] + ["nnpack"] * nnpack_offered())
        elif words == ["info"]:
            answer = json.dumps({"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()})
        else:
            case, which, calls, mode = words
            if (case, which, mode) not in ready:
                ready[case, which, mode] = workload(case, mode, which)
            f = ready[case, which, mode]
            with torch.backends.mkldnn.flags(enabled=mode != "nnpack"):
                start = clock()
                for _ in range(int(calls)):
                    f()
                answer = (clock() - start) / int(calls)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
