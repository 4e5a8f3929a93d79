"""One epoch of EMTC in a process of its own: its CPU seconds, its memory, and where they go.

An epoch is the loop of `EMTC._train` with its update of masks, embeddings and clusters; line 1 of
Algorithm 1 (networks, first clusters) is no part of it. One thread, and CPU seconds of the process,
which other work on the machine disturbs less than it does the wall clock.
"""

import collections
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def made(N, T, D, g=4):
    """X (N, T, D) float32: g classes of sine waves in noise, as noise alone is hard to cluster."""
    rng = np.random.default_rng(0)
    c, t = np.arange(N)[:, None, None] % g + 1, np.arange(T)[:, None] / min(T, 100)
    phase = rng.random((N, 1, D))
    wave = np.sin(2 * np.pi * (c * t + phase))
    return (wave + 0.5 * rng.standard_normal((N, T, D))).astype(np.float32)


def peak():
    """Bytes: the most that this process ever held (Linux's own count)."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


class Stopwatch:
    """CPU seconds by part; a part that another one calls counts for itself alone."""

    def __init__(self):
        self.spent, self.running = collections.Counter(), ["batches: forward, losses"]
        self.since = time.process_time()

    def switch(self):
        now = time.process_time()
        self.spent[self.running[-1]] += now - self.since
        self.since = now

    def watch(self, owner, name, part):
        """From now on the calls of owner.name count as `part`."""
        call = getattr(owner, name)

        def timed(*args, **options):
            self.switch()
            self.running.append(part)
            try:
                return call(*args, **options)
            finally:
                self.switch()
                self.running.pop()

        setattr(owner, name, timed)


def child(N, T, D, g=4, epochs=1, **options):
    """Print the median over the epochs and the peak memory beside X, as JSON."""
    sys.path.insert(0, str(ROOT))
    import torch

    import emtc

    torch.set_num_threads(1)
    emtc.EMTC(2, epochs=1, n_starts=1, device="cpu").fit(made(8, 16, 2))  # the libraries' own start
    watch = Stopwatch()
    watch.watch(emtc, "kmeans", "all: k-means")
    watch.watch(emtc.EMTC, "_embed", "all: embeddings")
    watch.watch(emtc.EMTC, "_importance", "all: importance")
    watch.watch(emtc.EMTC, "_clusters", "all: Eq. (10), numbering")
    watch.watch(torch.Tensor, "backward", "batches: backward")
    watch.watch(torch.optim.Adam, "step", "batches: Adam")
    clock = []

    class Timed(emtc.EMTC):
        def _begin(self, *given):
            super()._begin(*given)
            watch.switch()
            watch.spent.clear()
            clock.append(time.process_time())

    X = made(N, T, D, g)
    Path("/proc/self/clear_refs").write_text("5")  # what `made` held is forgotten by the peak
    before = peak()
    model = Timed(g, epochs=epochs, patience=epochs + 1, n_starts=1, device="cpu", **options)
    model.fit(X, on_epoch=lambda *_: clock.append(time.process_time()))
    watch.switch()
    seconds = statistics.median(b - a for a, b in zip(clock, clock[1:]))
    total = sum(watch.spent.values())
    share = {part: round(s / total, 3) for part, s in watch.spent.most_common()}
    print(json.dumps({"seconds": seconds, "mb": (peak() - before) / 2**20, "share": share}))


def measure(**size):
    """One point, {seconds, mb, share}, in a process of its own."""
    run = subprocess.run(
        [sys.executable, __file__, json.dumps(size)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if run.returncode:
        why = (run.stderr.strip() or "killed: out of memory?").splitlines()[-1]
        raise RuntimeError(f"{size}: {why[:200]}")
    return json.loads(run.stdout.splitlines()[-1])


def exponent(sizes, costs):
    """Slope of log cost over log size, by least squares."""
    x, y = ([math.log(v) for v in values] for values in (sizes, costs))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


if __name__ == "__main__":
    child(**json.loads(sys.argv[1]))
