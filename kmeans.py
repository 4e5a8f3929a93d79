"""k-means in torch: all restarts in one batched computation, on CPU and CUDA alike.

Lloyd's algorithm from greedy k-means++ seeds (Arthur & Vassilvitskii, 2007; the best of 2 + log k candidates
a step, as in scikit-learn). In the shapes: N points, d features, k clusters, R restarts, b points of a chunk.
"""
import math
from typing import NamedTuple

import numpy as np
import torch

BLOCK = {"cpu": 2**21, "cuda": 2**25}  # numbers in one (R, k, b) block of distances


class KMeansResult(NamedTuple):
    labels: torch.Tensor   # (N,) int64, 0 .. k - 1
    centers: torch.Tensor  # (k, d), dtype and device of X
    inertia: float         # sum over points of the squared distance to their centre
    n_iter: int            # iterations of the restart that won


def kmeans(X, n_clusters, n_init=10, max_iter=300, tol=1e-4, seed=0, init=None):
    """Cluster the rows of X into n_clusters groups; of n_init restarts the one of lowest inertia is returned.

    X           (N, d) torch or numpy, finite; float64 is kept, anything else is computed in float32
    max_iter    cap on the iterations of each restart
    tol         a restart ends once its centres move by no more than this: sum of squared shifts, in units of
                the mean variance of a feature (scikit-learn's rule); its labels then belong to its final centres
    seed        an int, or a torch.Generator, which is advanced; the global RNG is never touched.
                One seed repeats bit for bit on a CPU (with the same number of threads)
    init        (k, d) centres to start from: one start, so n_init and seed are not used

    A cluster that loses its last point is moved to the point farthest from its own centre, so no centre is ever
    NaN. With fewer distinct points than clusters some clusters stay without points, each on a data point.
    A restart ends early once it cannot catch up with a finished one: if at its last gain in inertia an iteration,
    all iterations left would not do (gains shrink as a rule; benchmarks/NOTES.md has the check).
    Returns a KMeansResult. Raises ValueError for a wrong shape, NaN or infinity, n_clusters outside 1 .. N.
    Memory beside X: one centred copy, 16 bytes a point and restart, and blocks of bounded size.
    """
    x, half_norm, mean, scale = _lift(X)                                 # (N, d + 1), (N,), (d,)
    if not 1 <= n_clusters <= len(x):
        raise ValueError(f"n_clusters must be between 1 and the number of points, {len(x)}; got {n_clusters}")
    if n_init < 1 or max_iter < 1:
        raise ValueError(f"n_init and max_iter must be at least 1; got {n_init} and {max_iter}")
    if init is None:
        gen = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
        C = _seed(x, half_norm, n_clusters, n_init, gen)                 # (R, k, d)
    else:
        C = torch.as_tensor(init).detach().to(x)
        if C.shape != (n_clusters, len(mean)) or not C.isfinite().all():
            raise ValueError(f"init must be finite, of shape {(n_clusters, len(mean))}; got shape {tuple(C.shape)}")
        C = ((C - mean) / scale)[None]                                   # (1, k, d)
    limit = tol * 2 * float(half_norm.mean()) / len(mean)
    labels, C, n_iter = _lloyd(x, half_norm, C, max_iter, limit)
    inertia = _inertia(x, C, labels)                                     # (R,)
    best = int(inertia.argmin())
    return KMeansResult(labels[best].clone(), C[best] * scale + mean,
                        float(inertia[best]) * scale**2, int(n_iter[best]))


def _lift(X):
    """(N, d) -> points x (N, d + 1), centred, scaled, with a last column of ones; |x|^2 / 2 (N,); mean (d,); scale.

    Far from the origin float32 would lose the distances between points, so the mean goes first; the scale keeps
    squares in range and is a power of two, so that it rounds nothing. Thanks to the ones a single product gives
    |c|^2 / 2 - c.x, and a single sum gives a cluster's total and its size.
    """
    X = X.detach() if isinstance(X, torch.Tensor) else torch.from_numpy(np.require(X, requirements="CW"))
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape (N, d) with N, d >= 1; got {tuple(X.shape)}")
    if X.dtype != torch.float64:
        X = X.float()
    mean = X.mean(0, dtype=torch.float64).to(X.dtype)
    x = torch.ones(len(X), X.shape[1] + 1, dtype=X.dtype, device=X.device)
    torch.sub(X, mean, out=x[:, :-1])
    low, high = (float(v) for v in x[:, :-1].aminmax())
    if not math.isfinite(high - low):
        raise ValueError("X contains NaN or infinite values")
    scale = 2.0 ** math.frexp(max(high, -low))[1]
    x[:, :-1] /= scale
    return x, torch.linalg.vector_norm(x[:, :-1], dim=1).square_() / 2, mean, scale


def _chunks(x, width):
    """Slices of the points, short enough for a block of width numbers a point."""
    size = max(128, BLOCK.get(x.device.type, BLOCK["cpu"]) // width)
    return [slice(i, min(i + size, len(x))) for i in range(0, len(x), size)]


def _half_distances(x, C):
    """|c|^2 / 2 - c.x for x (b, d + 1), C (R, k, d) -> (R, k, b): half the squared distance, less |x|^2 / 2."""
    lifted = torch.cat([-C, C.square().sum(2, keepdim=True) / 2], 2)     # (R, k, d + 1)
    return (lifted.flatten(0, 1) @ x.T).view(*C.shape[:2], len(x))       # (R, k, b)


def _seed(x, half_norm, k, R, gen):
    """R runs of greedy k-means++ at once -> centres (R, k, d), each of them a data point."""
    N, n_try = len(x), 2 + int(math.log(k))
    u = torch.rand(k, R, n_try, generator=gen, dtype=torch.float64, device=gen.device).to(x.device)
    near = torch.full((R, N), math.inf, dtype=x.dtype, device=x.device)  # half squared distance to the nearest
    runs = torch.arange(R, device=x.device)
    chunks = _chunks(x, R * n_try)
    C = x[(u[0, :, :1] * N).long().clamp_(max=N - 1), :-1]               # (R, 1, d)
    while True:
        for s in chunks:
            own = _half_distances(x[s], C[:, -1:])[:, 0] + half_norm[s]  # (R, b)
            near[:, s] = torch.minimum(near[:, s], own.clamp_(min=0))
        if C.shape[1] == k:
            return C
        mass = near.cumsum(1)                                            # (R, N)
        aim = (u[C.shape[1]] * mass[:, -1:]).to(x.dtype)                 # (R, n_try)
        tries = x[torch.searchsorted(mass, aim, right=True).clamp_(max=N - 1), :-1]         # (R, n_try, d)
        cost = torch.zeros(R, n_try, dtype=torch.float64, device=x.device)
        for s in chunks:
            own = (_half_distances(x[s], tries) + half_norm[s]).clamp_(min=0)               # (R, n_try, b)
            cost += torch.minimum(own, near[:, None, s]).sum(2)
        C = torch.cat([C, tries[runs, cost.argmin(1)][:, None]], 1)      # (R, j + 1, d)


def _lloyd(x, half_norm, C, max_iter, limit):
    """Lloyd's iterations from R starts C (R, k, d) -> labels (R, N), centres (R, k, d), n_iter (R,)."""
    R, k, d = C.shape
    labels = torch.zeros(R, len(x), dtype=torch.int64, device=x.device)
    # Float64, because the sums live through all iterations: each point that moves is added here, taken off there.
    sums = torch.zeros(R, k, d + 1, dtype=torch.float64, device=x.device)
    sums[:, 0] = x.sum(0, dtype=torch.float64)                           # every point begins in cluster 0
    near = _e_step(x, C, labels, sums)
    out = torch.empty_like(labels), torch.empty_like(C), torch.empty(R, dtype=torch.int64, device=x.device)
    alive, leader = torch.arange(R, device=x.device), math.inf
    for it in range(1, max_iter + 1):
        # M step
        new = (sums[..., :-1] / sums[..., -1:]).to(x.dtype)              # (R, k, d)
        empty, before = sums[..., -1] == 0, near.sum(1, dtype=torch.float64)                # (R, k), (R,)
        if empty.any():
            _reseed_empty(x, new, empty, near + half_norm)
        shift = (new - C).square().sum((1, 2))                           # (R,)
        C = new
        # E step
        near = _e_step(x, C, labels, sums)
        cost = near.sum(1, dtype=torch.float64)                          # (R,) half the inertia, less a constant
        over = (shift <= limit) | (it == max_iter)                       # (R,)
        if over.any():
            leader = min(leader, float(cost[over].min()))
        # A restart gives up if even gaining as much as just now in all iterations left would not make it the best.
        over |= cost - (before - cost) * (max_iter - it) > leader
        if over.any():
            for to, value in zip(out, (labels, C, torch.full_like(alive, it))):
                to[alive[over]] = value[over]
            alive, labels, C, sums, near = (t[~over] for t in (alive, labels, C, sums, near))
            if len(alive) == 0:
                break
    return out


def _e_step(x, C, labels, sums):
    """Give each point its nearest centre: updates labels (R, N) and sums (R, k, d + 1); returns near (R, N).

    A point stays on a tie. Late iterations move few points, and only those need an argmin and a change of sums.
    """
    R, k, d = C.shape
    near = torch.empty(R, len(x), dtype=x.dtype, device=x.device)
    flat = sums.view(R * k, d + 1)
    for s in _chunks(x, R * k):
        half, old = _half_distances(x[s], C), labels[:, s]               # (R, k, b), (R, b)
        best = near[:, s] = half.amin(1)                                 # (R, b)
        r, i = (best < half.gather(1, old[:, None])[:, 0]).nonzero(as_tuple=True)           # (m,) moves
        to, was = half[r, :, i].argmin(1), old[r, i]                     # (m,)
        old[r, i] = to
        for p in _chunks(r, 2 * d):
            point = x[s].index_select(0, i[p]).double()                  # (p, d + 1)
            flat.index_add_(0, r[p] * k + was[p], point, alpha=-1)
            flat.index_add_(0, r[p] * k + to[p], point)
    return near


def _reseed_empty(x, C, empty, distance):
    """Put each empty cluster, empty (R, k) = True, on a farthest point by distance (R, N); changes C (R, k, d)."""
    for r in empty.any(1).nonzero()[:, 0].tolist():
        C[r, empty[r]] = x[distance[r].topk(int(empty[r].sum())).indices, :-1]


def _inertia(x, C, labels):
    """Sum of squared distances (R,) float64, from differences: exact where the product form would cancel."""
    total, runs = 0, torch.arange(len(C), device=x.device)[:, None]
    for s in _chunks(x, C.shape[0] * C.shape[2]):
        total = total + (x[s, :-1] - C[runs, labels[:, s]]).square().sum((1, 2), dtype=torch.float64)
    return total
