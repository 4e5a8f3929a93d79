"""Speed of k-means and of the metrics: ours against scikit-learn, scipy and three torch packages, interleaved.

`rows(quick, repeats)` yields one dict a row for benchmarks/run.py; `python benchmarks/clustering.py` prints them.
With one thread the seconds are CPU seconds of this process, which other work on the machine disturbs least; with all
cores they are wall seconds, and only taken while the machine is idle. Medians. All get the same float32 array, ten
starts (packages that know only one are called ten times), at most 300 iterations where that can be set, and their own
defaults otherwise. Inertia is computed here, from the labels alone and in float64, in the same way for all; of ten
starts the best counts, and the note gives the mean over repeats, each with a seed of its own.
"""

import contextlib
import io
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import metrics  # noqa: E402
from kmeans import kmeans  # noqa: E402

STARTS = 10
SPREAD = {"blobs": 1.0, "overlapping blobs": 0.3}   # of the centres; the noise around them has 1
MEMORY = 300                                        # MB, the bound on k-means' peak extra memory
PATIENCE = 5                                        # a peer is stopped after this many times our seconds


def made(N, d, k, kind, seed=0):
    """(N, d) float32: k normal blobs of unit variance around normal centres."""
    rng = np.random.default_rng(seed)
    centers = SPREAD[kind] * rng.normal(size=(k, d))
    return (centers[rng.integers(k, size=N)] + rng.normal(size=(N, d))).astype(np.float32)


def inertia(X, labels):
    """Sum of squared distances to the mean of each label's points, in float64."""
    labels, total = np.asarray(labels), 0.0
    for c in np.unique(labels):
        points = X[labels == c].astype(np.float64)
        total += ((points - points.mean(0)) ** 2).sum()
    return total


# ---------------------------------------------------------------- the peers: (X, k, seed) -> list of label arrays

def _ours(X, k, seed):
    return [kmeans(X, k, n_init=STARTS, seed=seed).labels.numpy()]


def _sklearn(X, k, seed):
    from sklearn.cluster import KMeans
    return [KMeans(k, n_init=STARTS, random_state=seed).fit(X).labels_]


def _kmeans_pytorch(X, k, seed):
    from kmeans_pytorch import kmeans as theirs
    np.random.seed(seed)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return [theirs(torch.from_numpy(X), k)[0].numpy() for _ in range(STARTS)]


def _fast_pytorch_kmeans(X, k, seed):
    from fast_pytorch_kmeans import KMeans
    np.random.seed(seed)
    return [KMeans(k, max_iter=300).fit_predict(torch.from_numpy(X)).numpy() for _ in range(STARTS)]


def _torch_kmeans(X, k, seed):
    from torch_kmeans import KMeans
    model = KMeans(n_clusters=k, num_init=STARTS, max_iter=300, seed=seed, verbose=False)
    return [model(torch.from_numpy(X)[None]).labels[0].numpy()]


PEERS = {"scikit-learn": _sklearn, "kmeans-pytorch": _kmeans_pytorch, "fast-pytorch-kmeans": _fast_pytorch_kmeans,
         "torch-kmeans": _torch_kmeans}


# ---------------------------------------------------------------- timing

class OutOfTime(Exception):
    pass


@contextlib.contextmanager
def limit(seconds):
    """Raise OutOfTime after so many CPU seconds: kmeans-pytorch loops for ever once a cluster is empty."""
    def stop(*_):
        raise OutOfTime
    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


@contextlib.contextmanager
def threads(n):
    """n threads for torch and, through threadpoolctl (it comes with scikit-learn), for every other library."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        from threadpoolctl import threadpool_limits
        with threadpool_limits(n):
            yield
    except ImportError:
        yield
    finally:
        torch.set_num_threads(before)


def seconds(call, clock):
    start = clock()
    out = call()
    return clock() - start, out


def compare(X, k, peers, repeats, clock):
    """{peer: (seconds, inertias, problem)}, "ours" among them; ours runs first in each repeat."""
    took, found, problem = {}, {}, {}
    for seed in range(repeats):
        for name, call in {"ours": _ours, **peers}.items():
            if name in problem:
                continue
            patience = 600 if name == "ours" else max(10, PATIENCE * took["ours"][0])
            try:
                with limit(patience):
                    spent, labels = seconds(lambda: call(X, k, seed), clock)
            except ImportError as e:
                problem[name] = f"not installed: {e.name}"
            except OutOfTime:
                problem[name] = f"stopped after {patience:.0f} s, so the ratio is a lower bound"
                took.setdefault(name, []).append(patience)
            except RuntimeError as e:
                problem[name] = f"it fails: {str(e).splitlines()[0][:90]}"
            else:
                took.setdefault(name, []).append(spent)
                found.setdefault(name, []).append(min(inertia(X, one) for one in labels))
    return {name: (took.get(name), found.get(name), problem.get(name)) for name in ("ours", *peers)}


def kmeans_rows(size, kind, peers, repeats, cores):
    N, d, k = size
    clock = time.process_time if cores == 1 else time.perf_counter
    what = f"kmeans {N} x {d}, k={k}, {kind}" + ("" if cores == 1 else f", {cores} cores")
    with threads(cores):
        result = compare(made(N, d, k, kind), k, peers, repeats, clock)
    ours_s, ours_inertia = statistics.median(result["ours"][0]), statistics.mean(result["ours"][1])
    for peer in peers:
        took, found, problem = result[peer]
        row = dict(what=what, ours_s=ours_s, peer=peer, peer_s=None, ratio=None, must=1, holds=None, note=problem)
        if took:
            peer_s = statistics.median(took)
            row |= dict(peer_s=peer_s, ratio=peer_s / ours_s, holds=peer_s >= ours_s)
        if found and took:
            excess = ours_inertia / statistics.mean(found)
            row["holds"] &= excess <= 1.001
            row["wrong"] = excess > 1.05        # beyond what luck with ten starts explains
            row["note"] = f"inertia {excess:.4f} of the peer's; {len(took)} repeats" + (f"; {problem}" if problem else "")
        yield row


# ---------------------------------------------------------------- memory

def child(N, k, d, max_iter):
    """In a process of its own: print the MB by which k-means raises the peak above what X and torch already take."""
    from scaling import peak   # Linux's own count: ru_maxrss would begin with the parent's
    rng = np.random.default_rng(0)
    kmeans(rng.standard_normal((500, d), dtype=np.float32), 4)   # libraries and thread pools are there now
    X = rng.standard_normal((N, d), dtype=np.float32)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kmeans(X, k, n_init=STARTS, max_iter=max_iter)
    print((peak() - before) / 1e6)


def peak_memory(N, k, d, max_iter=2):
    """Peak extra memory of kmeans in MB (Linux); more iterations take no more than two do."""
    run = subprocess.run([sys.executable, __file__, "--child", *map(str, (N, k, d, max_iter))], check=True,
                         capture_output=True, text=True)
    return float(run.stdout)


def memory_rows(quick):
    for N, k, d in [(20_000, 50, 64)] if quick else [(200_000, 50, 64), (20_000, 50, 1000)]:
        row = dict(what=f"kmeans {N} x {d}, k={k}, memory", ours_s=None, peer="N x k x d array", peer_s=None, ratio=None,
                   must=f"< {MEMORY} MB", holds=None, note="measured on Linux only")
        if Path("/proc/self/statm").exists():
            mega, array = peak_memory(N, k, d), 4 * N * k * d / 1e6
            row |= dict(ratio=array / mega, holds=mega < MEMORY, wrong=mega >= MEMORY,
                        note=f"peak {mega:.0f} MB beside X; the array alone would take {array:.0f} MB")
        yield row


# ---------------------------------------------------------------- metrics

def theirs(y, c):
    """What ACC, F1, NMI and ARI take with scikit-learn and scipy."""
    from scipy.optimize import linear_sum_assignment
    from sklearn import metrics as sk
    table = sk.cluster.contingency_matrix(y, c)
    rows, cols = linear_sum_assignment(table, maximize=True)
    name = np.full(table.shape[1], -1)
    name[cols] = rows
    return {"ACC": table[rows, cols].sum() / len(y),
            "F1": sk.f1_score(y, name[c], labels=np.unique(y), average="macro", zero_division=0),
            "NMI": sk.normalized_mutual_info_score(y, c), "ARI": sk.adjusted_rand_score(y, c)}


def labelled(n, k, right, seed=0):
    """y, c (n,) int64: a clustering of which a share `right` follows the classes and the rest is random."""
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    return y, np.where(rng.random(n) < right, (y + 1) % k, rng.integers(k, size=n))


def metric_rows(quick, repeats):
    n, k = (2_000, 12) if quick else (100_000, 12)
    y, c = labelled(n, k, 0.6)
    yield _metric_row(f"ACC, F1, NMI and ARI, n={n}, k={k}", "scikit-learn", lambda: metrics.scores(y, c),
                      lambda: theirs(y, c), lambda a, b: all(abs(a[m] - b[m]) < 1e-9 for m in a), 1, repeats)
    for right, name in ((0.6, "of a clustering"), (0.0, "of random labels")):
        y100, c100 = labelled(100_000, 100, right)
        table = np.bincount(y100 * 100 + c100, minlength=10_000).reshape(100, 100)

        def assign():
            from scipy.optimize import linear_sum_assignment
            return linear_sum_assignment(table, maximize=True)
        yield _metric_row(f"match 100 x 100, {name}", "scipy", lambda: metrics.match(table), assign,
                          lambda a, b: table[a].sum() == table[b].sum(), None, repeats)


def _metric_row(what, peer, ours, other, same, must, repeats):
    row = dict(what=what, ours_s=None, peer=peer, peer_s=None, ratio=None, must=must, holds=None, note="")
    a, b, equal = [], [], True
    try:
        with threads(1):
            for _ in range(4 * repeats):   # milliseconds each, and the first calls warm up
                spent, x = seconds(ours, time.process_time)
                a.append(spent)
                spent, z = seconds(other, time.process_time)
                b.append(spent)
                equal &= same(x, z)
    except ImportError as e:
        return row | dict(note=f"not installed: {e.name}")
    ours_s, peer_s = statistics.median(a), statistics.median(b)
    return row | dict(ours_s=ours_s, peer_s=peer_s, ratio=peer_s / ours_s, wrong=not equal,
                      holds=equal and peer_s >= must * ours_s if must else None,
                      note=("equal results" if equal else "RESULTS DIFFER") + f"; {len(a)} repeats")


def rows(quick=False, repeats=5):
    """One dict a row: what, ours_s, peer, peer_s, ratio = peer_s / ours_s, must, holds, note (and wrong: True/False)."""
    yield from metric_rows(quick, repeats)
    yield from memory_rows(quick)
    if quick:
        yield from kmeans_rows((400, 16, 5), "blobs", PEERS, 2, 1)
        return
    small, medium, large = (500, 64, 10), (20_000, 64, 12), (200_000, 64, 50)
    sklearn_only = {"scikit-learn": _sklearn}
    for kind in SPREAD:
        yield from kmeans_rows(small, kind, PEERS, 4 * repeats, 1)
        yield from kmeans_rows(medium, kind, PEERS, repeats, 1)
    yield from kmeans_rows(large, "blobs", PEERS, repeats, 1)
    yield from kmeans_rows(large, "overlapping blobs", sklearn_only, 1, 1)
    cores = os.cpu_count()
    for size in (small, medium, large):
        if os.getloadavg()[0] > cores / 2 and size == small:
            yield dict(what=f"kmeans, {cores} cores", ours_s=None, peer="scikit-learn", peer_s=None, ratio=None, must=1,
                       holds=None, note=f"not measured: other work on the machine, load {os.getloadavg()[0]:.1f}")
            return
        yield from kmeans_rows(size, "blobs", sklearn_only, repeats, cores)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*map(int, sys.argv[2:]))
        sys.exit()
    from run import show_part
    show_part(rows, __doc__)
