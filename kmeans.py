"""k-means in torch: Lloyd's algorithm from k-means++ starts, all in one batch, on a CPU or GPU.

A start is found greedily, of 2 + log k candidates the best (Arthur & Vassilvitskii, 2007).
Shapes: N points, d features, k clusters, R restarts, b points of a chunk, t candidates.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

BLOCK = 2**19  # how many numbers one (R, k, b) block of distances holds; on a GPU 64 times that


class KMeansResult(NamedTuple):
    labels: torch.Tensor  # (N,) int64, 0 .. k - 1
    centers: torch.Tensor  # (k, d), dtype and device of X
    inertia: float  # sum over the points of the squared distance to their centre
    n_iter: int  # iterations of the restart that won


def kmeans(X, n_clusters, n_init=10, max_iter=300, tol=1e-4, seed=0, init=None, group=None):
    """Cluster the rows of X into n_clusters groups; of n_init restarts the lowest inertia wins.

    X         (N, d) torch or numpy, finite; float64 is kept, anything else becomes float32
    max_iter  cap on the iterations of each restart
    tol       a restart ends once sum_j |shift of c_j|^2 <= tol * mean variance of a feature
    seed      an int, or a torch.Generator, which is advanced; the global RNG is never touched
    init      (k, d) centres to start from: one start, so n_init and seed are not used
    group     a torch.distributed process group, where each rank holds a share of the points (one
              at least) and gives the same other arguments; labels are those of its share

    An empty cluster moves to the point farthest from the nearest centre; with fewer distinct points
    than clusters some stay empty. ValueError for wrong shapes, NaN or infinity, a wrong n_clusters.
    Memory beside X: one copy, about 40 bytes a point and restart, and blocks of bounded size.
    """
    x, N, mean, scale = _centred(X, group)  # (N, d), int, (d,), float
    k, R, d = int(n_clusters), int(n_init), x.shape[1]
    if not 1 <= k <= N or n_clusters != k or R < 1 or max_iter < 1:
        given = f"got n_clusters={n_clusters}, n_init={n_init}, max_iter={max_iter}"
        raise ValueError(f"need whole numbers >= 1, n_clusters <= {N}; {given}")
    if init is None:
        if not isinstance(seed, torch.Generator):
            seed = torch.Generator().manual_seed(int(seed))
        C = _plus_plus(x, k, R, seed, group)  # (R, k, d)
    else:
        C = torch.as_tensor(init).detach().to(x)[None]  # (1, k, d)
        if C.shape != (1, k, d) or not C.isfinite().all():
            raise ValueError(f"init must be finite, of shape {(k, d)}; got {tuple(C.shape[1:])}")
        C = C / scale - mean
    variance = float(_all_ranks(x.square().sum(dtype=torch.float64), group)) / N / d
    C, n_iter = _lloyd(x, C, int(max_iter), tol * variance, group)
    labels, least = e_step(x, C)  # (R, N)
    best = int(_all_ranks(least.sum(1, dtype=torch.float64), group).argmin())
    labels, C = labels[best].clone(), C[best]  # (N,), (k, d)
    parts = [(x[s] - C[labels[s]]).square().sum(dtype=torch.float64) for s in _chunks(x, d)]
    inertia = float(_all_ranks(sum(parts), group)) * scale * scale
    return KMeansResult(labels, (C + mean) * scale, inertia, int(n_iter[best]))


def e_step(x, C):
    """E step: give each point of x (N, d) the nearest of each restart's centres C (R, k, d).

    label(n) = argmin_j |x_n - c_j|^2 / 2 = argmin_j |c_j|^2 / 2 - c_j.x_n, the lowest j on a tie.
    Returns the labels (R, N) and the minima (R, N): half the squared distances, less |x_n|^2 / 2.
    """
    parts = [_half_distances(x[s], C).min(1) for s in _chunks(x, C[..., 0].numel())]
    least, labels = (torch.cat(part, 1) for part in zip(*parts))  # (R, N)
    return labels, least


def m_step(x, labels, before, sums, group=None):
    """M step: centres are the means of their points, c_j = sum_{label(n) = j} x_n / size_j.

    x (N, d); labels and, of the last iteration, before (R, N) -> centres (R, k, d), 0 for a cluster
    without points; sizes (R, k). sums (R, k, d) are those of `before`: only points whose label has
    changed, late on few, leave one sum for another, in place; in float64, lest rounding adds up.
    """
    R, k, d = sums.shape
    offset = k * torch.arange(R, device=x.device)[:, None]  # so that each cluster has its own row
    old, new = before + offset, labels + offset  # (R, N)
    r, n = (old != new).nonzero(as_tuple=True)  # (m,) restarts and points
    for s in _chunks(r, 2 * d):
        point = x[n[s]].double()  # (b, d)
        sums.view(R * k, d).index_add_(0, old[r[s], n[s]], point, alpha=-1)
        sums.view(R * k, d).index_add_(0, new[r[s], n[s]], point)
    sizes = _all_ranks(new.flatten().bincount(minlength=R * k), group).view(R, k, 1)
    total = sums if group is None else _all_ranks(sums.clone(), group)
    return (total / sizes.clamp(min=1)).to(x.dtype), sizes[..., 0]


def _lloyd(x, C, max_iter, limit, group):
    """E and M steps from C (R, k, d) until each restart stands still -> C, n_iter (R,)."""
    moving = torch.arange(len(C), device=x.device)  # the restarts that go on
    n_iter, before = torch.zeros_like(moving), moving.new_zeros(len(C), len(x))  # (R,), (R, N)
    sums = torch.zeros_like(C, dtype=torch.float64)
    sums[:, 0] = x.sum(0, dtype=torch.float64)  # all points begin in cluster 0
    while len(moving) and n_iter.max() < max_iter:
        labels, least = e_step(x, C[moving])
        new, sizes = m_step(x, labels, before, sums, group)
        if (sizes == 0).any():
            _refill(x, new, sizes, least, group)
        on = (new - C[moving]).square().sum((1, 2)) > limit  # (R,)
        C[moving], n_iter[moving] = new, n_iter[moving] + 1
        moving, before, sums = moving[on], labels[on], sums[on]
    return C, n_iter


def _refill(x, C, sizes, least, group):
    """Move each cluster of size 0 to the point farthest from any centre; changes C and `least`."""
    half = torch.linalg.vector_norm(x, dim=1).square() / 2
    for r, j in (sizes == 0).nonzero().tolist():
        distance = (least[r] + half)[None]  # (1, N)
        top = _all_ranks(distance.max(), group, "MAX")
        C[r, j] = _draw(x, distance == top, x.new_zeros(1, 1), group)[0, 0]  # share 0: the first
        least[r] = least[r].minimum(_half_distances(x, C[r, None, j : j + 1])[0, 0])


def _plus_plus(x, k, R, rng, group):
    """R starts of greedy k-means++ at once -> centres (R, k, d), each of them a data point."""
    t, runs = 2 + int(math.log(k)), torch.arange(R, device=x.device)
    u = torch.rand(k, R, t, generator=rng, dtype=torch.float64, device=rng.device).to(x.device)
    half = torch.linalg.vector_norm(x, dim=1).square() / 2
    near = x.new_full((R, len(x)), math.inf)  # half the squared distance to the nearest centre
    C = _draw(x, torch.ones_like(near), u[0, :, :1], group)  # (R, 1, d), uniformly
    for j in range(1, k):
        for s in _chunks(x, R * t):
            far = _half_distances(x[s], C[:, -1:])[:, 0] + half[s]  # (R, b)
            near[:, s] = near[:, s].minimum(far.clamp_(min=0))
        tries = _draw(x, near, u[j], group)  # (R, t, d), with a chance like `near`
        cost = torch.zeros(R, t, dtype=torch.float64, device=x.device)
        for s in _chunks(x, R * t):
            far = (_half_distances(x[s], tries) + half[s]).clamp_(min=0)  # (R, t, b)
            cost += far.minimum(near[:, None, s]).sum(2)
        best = _all_ranks(cost, group).argmin(1)  # (R,)
        C = torch.cat([C, tries[runs, best, None]], 1)  # (R, j + 1, d)
    return C


def _draw(x, mass, share, group):
    """The first points whose cumulative mass (R, N) exceeds a share (R, t) of all -> (R, t, d)."""
    rank, ranks = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    mass = mass.cumsum(1, dtype=torch.float64)  # (R, N)
    ends = mass.new_zeros(ranks, len(mass), 1)  # in the end the mass up to each rank's end
    ends[rank:] = mass[:, -1:]
    aim = share * _all_ranks(ends, group)[-1]  # (R, t); `ends` is summed in place
    mine = (aim >= ends[:-1]).sum(0) == rank
    place = torch.searchsorted(mass, aim - ends[rank] + mass[:, -1:], right=True)
    return _all_ranks(x[place.clamp(max=len(x) - 1)] * mine[..., None], group)


def _centred(X, group):
    """X (n, d) of this rank -> (X / scale - mean, N, mean (d,), scale); N and mean are of all.

    X / scale is in -2 .. 2, so that squares stay in range; a power of two rounds nothing. Far
    from 0 float32 would lose the distances between points, so the mean is subtracted.
    """
    X = X if isinstance(X, torch.Tensor) else torch.from_numpy(np.require(X, None, "CW"))
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape (N, d) with N, d >= 1; got {tuple(X.shape)}")
    X = X.detach() if X.dtype == torch.float64 else X.detach().float()
    top = torch.stack(X.aminmax()).abs().max().nan_to_num(math.inf, math.inf)
    top = float(_all_ranks(top, group, "MAX"))
    if top == math.inf:
        raise ValueError("X contains NaN or infinite values")
    scale = 2.0 ** (math.frexp(top)[1] - 1)
    x, N = X / scale, int(_all_ranks(torch.tensor(len(X), device=X.device), group))
    mean = (_all_ranks(x.sum(0, dtype=torch.float64), group) / N).to(x.dtype)
    return x.sub_(mean), N, mean, scale


def _half_distances(x, C):
    """Half the squared distance of x (b, d) and C (R, k, d), less |x|^2 / 2 -> (R, k, b)."""
    half = C.square().sum(2).view(-1, 1) / 2  # (R k, 1)
    return torch.addmm(half, C.flatten(0, 1), x.T, alpha=-1).view(*C.shape[:2], len(x))


def _chunks(x, width):
    """Slices of the points, short enough for a block of width numbers a point."""
    size = max(128, BLOCK // width if x.device.type == "cpu" else 64 * BLOCK // width)
    return [slice(i, i + size) for i in range(0, len(x), size)]


def _all_ranks(value, group, op="SUM"):
    """The sum (or MAX) of value over the ranks, in place; without a group value as it is."""
    if group:
        dist.all_reduce(value, getattr(dist.ReduceOp, op), group=group)
    return value
