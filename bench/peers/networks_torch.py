"""One pass of a UNet or a DiT in PyTorch: the peer of Costate's bench/networks.

Networks (velocity v(x, t); sinusoidal time features of 1000 t):
  unet    28x28x1: base width 64, multipliers 1, 2, 2, two residual blocks a level, group norm with 32 groups and
          SiLU, attention with heads of 32 channels at 7x7 (the arithmetic of diffusers' UNet2DModel with
          DownBlock2D, DownBlock2D, AttnDownBlock2D)
  dit16   8x8x1 in patches of 2: 16 tokens; width 384, depth 6, 6 heads, adaLN-zero, MLP ratio 4, GELU (tanh)
          (Peebles and Xie 2023, "Scalable Diffusion Models with Transformers")
  dit49   28x28x1 in patches of 4: 49 tokens
  dit196  28x28x1 in patches of 2: 196 tokens
Work:
  forward   v(x, t), nothing recorded
  training  the mean square of v(x, t) - target and its gradient with respect to every parameter
  vjp       <a, dv/dx> through the network with frozen parameters, forward pass included
Modes:
  eager          as most people run it
  channels_last  eager, convolutions in NHWC (unet)
  compile        torch.compile (Inductor); needs g++ and the Python headers
  compile_last   the same in NHWC (unet)
  freeze         compile with the parameters as packed constants (forward)
  autotune       compile with measured matrix-product templates, and as freeze for forward
Precision:
  f32       float32 arithmetic throughout
  bf16      parameters and activations in bfloat16
  autocast  parameters in float32, torch.autocast to bfloat16

`--serve` answers lines on stdin: "run" performs one timed pass and prints its seconds; "info" prints versions,
settings, the floating-point operations of one pass and its peak memory as JSON. --check compares a mode with
eager float32.
"""

import argparse
import copy
import json
import math
import os
import statistics
import sys
import time


def options():
    ap = argparse.ArgumentParser(description="One pass of a UNet or a DiT in PyTorch")
    ap.add_argument("--network", choices=["unet", "dit16", "dit49", "dit196"], default="dit49")
    ap.add_argument("--work", choices=["forward", "training", "vjp"], default="forward")
    ap.add_argument("--precision", choices=["f32", "bf16", "autocast"], default="f32")
    ap.add_argument(
        "--mode",
        choices=["eager", "channels_last", "compile", "compile_last", "freeze", "autotune"],
        default="eager",
    )
    ap.add_argument("--batch", type=int, help="16 for unet, else 32")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--iterations", type=int, default=10)
    ap.add_argument("--serve", action="store_true")
    ap.add_argument("--check", action="store_true", help="compare with eager float32, then exit")
    ap.add_argument("--count", action="store_true", help="print the operations of one eager pass in GFLOP")
    given = ap.parse_args()
    if given.batch is None:
        given.batch = 16 if given.network == "unet" else 32
    if given.mode == "freeze" and given.work != "forward":
        ap.error("--mode freeze packs parameters as constants, which is for --work forward")
    if given.mode.endswith("_last") and given.network != "unet":
        ap.error(f"--mode {given.mode} is a layout of images: only for --network unet")
    return given


cfg = options()
# Thread counts must be in the environment before the BLAS library is loaded.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, str(cfg.threads))

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(cfg.threads)
torch.manual_seed(0)
clock = time.process_time if cfg.threads == 1 else time.perf_counter


def time_features(t, width):
    half = width // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angle = 1000.0 * t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1).to(t.dtype)


# ---- DiT ---------------------------------------------------------------------------------------------------


class DiTBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c)).unsqueeze(1).chunk(6, -1)
        b, n, d = x.shape
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + gate1 * self.proj(y)
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.fc2(F.gelu(self.fc1(y), approximate="tanh"))


class DiT(nn.Module):
    def __init__(self, size, patch, width=384, depth=6, heads=6):
        super().__init__()
        self.patch, self.grid = patch, size // patch
        self.embed = nn.Linear(patch * patch, width)
        self.register_buffer("position", torch.randn(1, self.grid**2, width) * 0.02)
        self.time1, self.time2 = nn.Linear(256, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList([DiTBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation, self.out = nn.Linear(width, 2 * width), nn.Linear(width, patch * patch)

    def forward(self, x, t):
        b, p, g = x.shape[0], self.patch, self.grid
        y = x.view(b, g, p, g, p).permute(0, 1, 3, 2, 4).reshape(b, g * g, p * p)
        y = self.embed(y) + self.position
        c = self.time2(F.silu(self.time1(time_features(t, 256))))
        for block in self.blocks:
            y = block(y, c)
        shift, scale = self.modulation(F.silu(c)).unsqueeze(1).chunk(2, -1)
        y = self.out(self.norm(y) * (1 + scale) + shift)
        return y.view(b, g, g, p, p).permute(0, 1, 3, 2, 4).reshape(b, 1, g * p, g * p)


# ---- UNet --------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, inputs, outputs, time_width):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_width, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, e):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(e))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, width, head=32):
        super().__init__()
        self.heads = width // head
        self.norm = nn.GroupNorm(32, width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, c, height, width = x.shape
        y = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(y).view(b, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, c)
        return x + self.proj(y).transpose(1, 2).reshape(b, c, height, width)


class UNet(nn.Module):
    def __init__(self, channels=1, base=64, multipliers=(1, 2, 2), blocks=2, attention_level=2):
        super().__init__()
        self.base, e = base, 4 * base
        self.time1, self.time2 = nn.Linear(base, e), nn.Linear(e, e)
        self.first = nn.Conv2d(channels, base, 3, padding=1)

        def stage(inputs, outputs, level):
            with_attention = level == attention_level
            return nn.ModuleList(
                [Residual(inputs, outputs, e), Attention(outputs) if with_attention else nn.Identity()]
            )

        self.down, self.up, widths, c = nn.ModuleList(), nn.ModuleList(), [base], base
        for level, m in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(stage(c, base * m, level))
                c = base * m
                widths.append(c)
            if level + 1 < len(multipliers):
                self.down.append(nn.ModuleList([nn.Conv2d(c, c, 3, stride=2, padding=1)]))
                widths.append(c)
        self.middle = nn.ModuleList([Residual(c, c, e), Attention(c), Residual(c, c, e)])
        for level, m in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(stage(c + widths.pop(), base * m, level))
                c = base * m
            if level:
                self.up.append(nn.ModuleList([nn.Conv2d(c, c, 3, padding=1)]))
        self.norm, self.last = nn.GroupNorm(32, c), nn.Conv2d(c, channels, 3, padding=1)

    def forward(self, x, t):
        e = self.time2(F.silu(self.time1(time_features(t, self.base))))
        h = self.first(x)
        skips = [h]
        for part in self.down:
            h = part[1](part[0](h, e)) if len(part) == 2 else part[0](h)
            skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, e)), e)
        for part in self.up:
            if len(part) == 2:
                h = part[1](part[0](torch.cat([h, skips.pop()], 1), e))
            else:
                h = part[0](F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(h)))


# ---- one pass ----------------------------------------------------------------------------------------------


def make():
    """The network and its operands x, t, target (the cotangent of vjp), in float32."""
    torch.manual_seed(0)
    size, patch = {"unet": (28, 0), "dit16": (8, 2), "dit49": (28, 4), "dit196": (28, 2)}[cfg.network]
    network = UNet() if cfg.network == "unet" else DiT(size, patch)
    shape = (cfg.batch, 1, size, size)
    return network, torch.randn(shape), torch.rand(cfg.batch), torch.randn(shape)


def passing(mode, precision):
    """A function without arguments that performs one pass and returns its results."""
    network, x, t, target = make()
    network = copy.deepcopy(network)
    if precision == "bf16":
        network, x, t, target = network.bfloat16(), x.bfloat16(), t.bfloat16(), target.bfloat16()
    if mode.endswith("_last"):
        network = network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if cfg.work != "training":
        network.requires_grad_(False)
        network.eval()
    if mode.startswith("compile") or mode in ("freeze", "autotune"):
        import torch._inductor.config as inductor

        if mode == "freeze" or (mode == "autotune" and cfg.work == "forward"):
            inductor.freezing = True
        network = torch.compile(
            network, dynamic=False, mode="max-autotune-no-cudagraphs" if mode == "autotune" else None
        )
    parameters = [p for p in network.parameters() if p.requires_grad]
    if cfg.work == "vjp":
        x.requires_grad_(True)

    def evaluate():
        if precision == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                return network(x, t)
        return network(x, t)

    def forward():
        with torch.no_grad():
            return [evaluate()]

    def training():
        for p in parameters:
            p.grad = None
        F.mse_loss(evaluate().to(target.dtype), target).backward()
        return [p.grad for p in parameters]

    def vjp():
        x.grad = None
        y = evaluate()
        y.backward(target.to(y.dtype))
        return [x.grad]

    return {"forward": forward, "training": training, "vjp": vjp}[cfg.work]


def status_bytes(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    return 0


def peak_memory(run):
    """Resident bytes at the highest point of a pass, beyond what is resident between passes, and in all."""
    between = status_bytes("VmRSS")
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the high-water mark starts again (proc(5))
    except OSError:
        pass
    run()
    return {"peak_resident_bytes": status_bytes("VmHWM"), "resident_between_passes": between}


def gigaflop():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        passing("eager", "f32")()
    return counter.get_total_flops() * 1e-9


def information(run, before):
    settings = {k: os.environ[k] for k in ("GLIBC_TUNABLES",) if k in os.environ}
    if "LD_PRELOAD" in os.environ:  # file names only: the folders differ from machine to machine
        settings["LD_PRELOAD"] = [os.path.basename(p) for p in os.environ["LD_PRELOAD"].replace(":", " ").split()]
    return dict(
        peak_memory(run),
        resident_before_first_pass=before,
        torch=torch.__version__,
        python=sys.version.split()[0],
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        options={k: v for k, v in vars(cfg).items() if k not in ("serve", "check", "count")},
        environment=settings,
    )


def timed(run):
    start = clock()
    run()
    return clock() - start


def main():
    if cfg.count:
        return print(f"{gigaflop():.6f}")
    if cfg.check:
        plain = [v.float().clone() for v in passing("eager", "f32")()]
        other = [v.float() for v in passing(cfg.mode, cfg.precision)()]
        worst = max(((a - b).norm() / (a.norm() + 1e-12)).item() for a, b in zip(plain, other))
        print(f"largest difference relative to the norm of each result: {worst:.2e}")
        if not worst < (1e-4 if cfg.precision == "f32" else 0.2):
            sys.exit(f"mode {cfg.mode} in {cfg.precision} does not agree with eager float32")
        return
    before = status_bytes("VmRSS")
    run = passing(cfg.mode, cfg.precision)
    if cfg.serve:
        for line in sys.stdin:
            command = line.strip()
            if command == "run":
                print(f"{timed(run):.9f}", flush=True)
            elif command == "info":
                print(json.dumps(information(run, before)), flush=True)
            elif command == "quit":
                return
            elif command:
                sys.exit(f'unknown command "{command}"; expected run, info or quit')
        return
    for _ in range(3):
        run()
    seconds = [timed(run) for _ in range(cfg.iterations)]
    result = {"median_ms": statistics.median(seconds) * 1e3, "min_ms": min(seconds) * 1e3}
    print(json.dumps(dict(result, gigaflop=gigaflop(), **information(run, before))))


if __name__ == "__main__":
    main()
