"""k-means against scikit-learn, one thread, CPU seconds, interleaved; and its peak memory.

Both get the same float32 array, ten starts (or the same centres: a warm start, on points that moved
a little since), at most 300 iterations and tol=1e-4. Inertia is computed here, from the labels
alone, in float64. Above 1 we are faster.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SPREAD = {"blobs": 1.0, "overlapping blobs": 0.3}  # of the centres; the noise around them has 1
SIZES = (500, 64, 10, 9), (20_000, 64, 12, 3), (200_000, 64, 50, 1)  # N, d, k, repeats
MEMORY = 150  # MB, the bound on the peak memory of k-means beside X


def blobs(N, d, k, spread):
    """(N, d) float32: k normal blobs of unit variance around normal centres."""
    rng = np.random.default_rng(0)
    centers = spread * rng.normal(size=(k, d))
    return (centers[rng.integers(k, size=N)] + rng.normal(size=(N, d))).astype(np.float32)


def inertia(X, labels):
    """Sum of squared distances to the mean of each label's points."""
    groups = [X[labels == c].astype(np.float64) for c in np.unique(labels)]
    return sum(((points - points.mean(0)) ** 2).sum() for points in groups)


def timed(call):
    start = time.process_time()
    labels = call()
    return time.process_time() - start, np.asarray(labels)


def compare(what, X, ours, theirs, repeats):
    """A row: scikit-learn's seconds over ours; ok where our inertia is at most 5 % above theirs."""
    found = [(*timed(lambda: ours(s)), *timed(lambda: theirs(s))) for s in range(repeats)]
    a, b = (statistics.median(f[i] for f in found) for i in (0, 2))
    excess = sum(inertia(X, f[1]) for f in found) / sum(inertia(X, f[3]) for f in found)
    note = f"times scikit-learn's speed; {a:.3g} s; inertia {excess:.4f} of its; {repeats} repeats"
    return dict(what=f"k-means {what}", value=b / a, note=note, ok=bool(excess < 1.05))


def rows(quick):
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        yield dict(what="k-means", value=None, note="left out: scikit-learn is not installed")
        return
    import torch

    from kmeans import kmeans

    torch.set_num_threads(1)
    kmeans(np.eye(8, dtype=np.float32), 2)  # the libraries' own start
    KMeans(2, n_init=1).fit(np.eye(8, dtype=np.float32))
    for N, d, k, repeats in [(400, 16, 5, 2)] if quick else SIZES:
        for kind, spread in SPREAD.items():
            X, what = blobs(N, d, k, spread), f"{N} x {d}, k = {k}, {kind}"
            if N < 100_000 or kind == "blobs":
                yield compare(
                    what,
                    X,
                    lambda seed: kmeans(X, k, n_init=10, seed=seed).labels,
                    lambda seed: KMeans(k, n_init=10, random_state=seed).fit(X).labels_,
                    repeats,
                )
            C = kmeans(X, k, n_init=1).centers.numpy()
            moved = X + 0.3 * np.random.default_rng(1).standard_normal(X.shape, dtype=np.float32)
            yield compare(
                f"{what}, warm start",
                moved,
                lambda _: kmeans(moved, k, init=C).labels,
                lambda _: KMeans(k, init=C, n_init=1).fit(moved).labels_,
                2 * repeats + 1,
            )


def child(N, d, k):
    """In a process of its own: print the MB by which k-means raises the peak, in two iterations."""
    from epoch import peak

    from kmeans import kmeans

    rng = np.random.default_rng(0)
    kmeans(rng.standard_normal((500, d), dtype=np.float32), 4)
    X = rng.standard_normal((N, d), dtype=np.float32)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kmeans(X, k, max_iter=2)
    print((peak() - before) / 2**20)


def peak_memory(N, d, k):
    """Peak memory of kmeans beside X in MB (Linux)."""
    command = [sys.executable, __file__, *map(str, (N, d, k))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    child(*map(int, sys.argv[1:]))
