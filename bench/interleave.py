"""What the comparisons share: an idle machine, its peak, PyTorch's environments, programs that take turns.

A program under comparison is a child process. It answers each line "run" on its stdin with one iteration and a
line of numbers, seconds first, and each line "info" with one line of JSON. It times itself: process CPU time
with one thread (preemption by other work does not count), else wall clock.
"""

import ctypes.util
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
GLIBC = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"


# ---- the machine -------------------------------------------------------------------------------------------


def processor_ticks():
    v = [float(x) for x in open("/proc/stat").readline().split()[1:9]]
    return sum(v) - v[3] - v[4], sum(v)


def wait_idle(longest, threshold=0.12):
    """Waits until less than `threshold` of the processors was busy for 80 ms; returns whether that happened."""
    if not os.path.exists("/proc/stat"):
        return True
    start = time.monotonic()
    while True:
        busy, total = processor_ticks()
        time.sleep(0.08)
        busy_now, total_now = processor_ticks()
        if busy_now - busy <= threshold * max(total_now - total, 1):
            return True
        if time.monotonic() - start > longest:
            return False


def cpu_name():
    try:
        names = re.findall(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
        return names[0] if names else "unknown"
    except OSError:
        return "unknown"


def compile_c(source, target, flags):
    """True when the C compiler made `target` from peers/`source`."""
    command = [os.environ.get("CC", "cc"), *flags, str(HERE / "peers" / source), "-o", str(target)]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def core_peak(folder):
    """f32 GFLOP/s of one core, or None without a C compiler."""
    program = folder / "fma_peak"
    if not compile_c("fma_peak.c", program, ["-O3", "-march=native"]):
        return None
    return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def vendor_library(folder):
    """The library that lets MKL take its best kernels on any CPU, or None without a C compiler."""
    target = folder / "libmkl_vendor.so"
    return target if compile_c("mkl_vendor.c", target, ["-O2", "-shared", "-fPIC"]) else None


def library(name):
    """Full path of an installed shared library, or None."""
    short = ctypes.util.find_library(name)
    listing = subprocess.run("/sbin/ldconfig -p || true", shell=True, capture_output=True, text=True).stdout
    found = re.search(r"^\s*" + re.escape(short or "no such library") + r" .*=> (\S+)$", listing, re.M)
    return found.group(1) if found else None


# ---- PyTorch's environments --------------------------------------------------------------------------------


def interpreter(text, vendor):
    """What to start for --python `text`: a dictionary of program, version, whether it is 2.x, and environments.

    The environments are by allocator, the fastest of those tried last; MKL takes its best kernels in each.
    """
    allocators = {"glibc": {"GLIBC_TUNABLES": GLIBC}}
    tcmalloc = library("tcmalloc_minimal") or library("tcmalloc")
    if tcmalloc:
        allocators["tcmalloc"] = {"LD_PRELOAD": tcmalloc}
    probe = (
        "import json, torch; print(json.dumps([torch.__version__, torch.backends.mkl.is_available(), "
        "int(torch.__version__.split('.')[0]) >= 2]))"
    )
    words = shlex.split(text)
    given = dict(w.split("=", 1) for w in words[:-1])
    try:
        answer = subprocess.run(
            [words[-1], "-c", probe], capture_output=True, text=True, env=dict(os.environ, **given)
        )
        reason = "" if answer.returncode == 0 else (answer.stderr.strip() or "it failed without a word")
    except OSError as error:
        reason = str(error)
    if reason:
        raise RuntimeError(f'--python "{text}" does not import torch: ' + reason.splitlines()[-1])
    version, mkl, modern = json.loads(answer.stdout.strip().splitlines()[-1])
    given.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    if not modern:
        given.setdefault(
            "ATEN_CPU_CAPABILITY", "avx512" if "avx512f" in open("/proc/cpuinfo").read() else "avx2"
        )
    environments = {}
    for allocator, settings in allocators.items():
        environment = dict(given, **settings)
        if mkl and vendor:
            loaded = [environment.get("LD_PRELOAD"), str(vendor)]
            environment["LD_PRELOAD"] = ":".join(p for p in loaded if p)
        environments[allocator] = environment
    return {"program": words[-1], "version": version, "modern": modern, "environments": environments}


# ---- programs that take turns ------------------------------------------------------------------------------


class Program:
    """A child process that performs one iteration for each line "run" and answers `columns` numbers."""

    def __init__(self, name, command, environment=None, columns=("seconds",)):
        self.name, self.columns, self.log = name, columns, tempfile.TemporaryFile("w+")
        try:
            self.child = subprocess.Popen(
                [str(w) for w in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=dict(os.environ, **(environment or {})),
            )
        except OSError as error:
            raise RuntimeError(f"{name} does not start: {error}") from None

    def ask(self, line):
        try:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
            answer = self.child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended: " + " | ".join(self.log.read().strip().splitlines()[-3:]))
        return answer

    def run(self):
        answer = self.ask("run")
        try:
            values = [float(x) for x in answer.split()]
        except ValueError:
            values = []
        if len(values) != len(self.columns):
            raise RuntimeError(
                f'{self.name} answered "{answer.strip()}", expected {len(self.columns)} number(s): '
                + " ".join(self.columns)
            )
        return values

    def information(self):
        return json.loads(self.ask("info"))

    def close(self):
        try:
            self.child.stdin.close()
            self.child.wait(20)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        self.log.close()


def tournament(entries, warmup, iterations, idle_wait, columns=("seconds",)):
    """Medians in ms by entry (name, command, environment), of those that ran."""
    medians = {}
    for name, command, environment in entries:
        program = Program(name, command, environment, columns)
        try:
            for _ in range(warmup):
                program.run()
            seconds = []
            for _ in range(iterations):
                wait_idle(idle_wait)
                seconds.append(program.run()[0])
            medians[name] = statistics.median(seconds) * 1e3
            print(f"  {name}: {medians[name]:.2f} ms", flush=True)
        except RuntimeError as error:
            print(f"  left out: {error}", flush=True)
        finally:
            program.close()
    if not medians:
        raise RuntimeError("no PyTorch entry ran")
    return medians


def interleave(programs, warmup, rounds, idle_wait):
    """[program][round][column] in seconds, and the number of turns that found no idle machine."""
    for program in programs:
        for _ in range(warmup):
            program.run()
    seconds, disturbed = [[] for _ in programs], 0
    for r in range(rounds):
        for i in range(len(programs)):
            turn = (i + r) % len(programs)
            disturbed += not wait_idle(idle_wait)
            seconds[turn].append(programs[turn].run())
    return seconds, disturbed


def quartiles(values):
    return [round(q, 3) for q in statistics.quantiles(values, n=4, method="inclusive")]
