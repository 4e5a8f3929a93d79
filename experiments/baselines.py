"""What a user would try before EMTC: k-means on the raw values, random kernels + PCA + k-means.

X is (N, T, D), NaN = missing or padding; each function returns labels (N,) int64. No labels are read.
"""

import math

import torch
import torch.nn.functional as F

import common  # noqa: F401  (puts the project on the path)
from kmeans import kmeans


def z_scored(X):
    """x (N, D, T) float32, each variate z-scored over its observed values, missing 0; seen (N, D, T) bool."""
    x = torch.as_tensor(X).to(torch.float64).transpose(1, 2)                   # (N, D, T)
    seen = ~x.isnan()
    mean = x.nanmean((0, 2), keepdim=True).nan_to_num()                        # (1, D, 1)
    std = (x - mean).square().nanmean((0, 2), keepdim=True).sqrt().nan_to_num()
    std = torch.where(std <= 1e-7 * mean.abs(), math.inf, std)                 # a constant variate becomes 0
    return ((x - mean) / std).nan_to_num().float(), seen


def raw_kmeans(X, n_clusters, seed):
    """k-means on the z-scored values, flattened; missing values stand as the variate's mean."""
    x, _ = z_scored(X)
    return kmeans(x.flatten(1), n_clusters, n_init=10, seed=seed).labels


def random_kernels(X, n_kernels, generator):
    """Features (N, 2 n_kernels): maximum and share of positives of random dilated convolutions.

    As Dempster et al. 2020 (arXiv 1910.13051) draw them: 7, 9 or 11 taps, normal, their mean removed; bias in
    (-1, 1); dilation 2^u up to the series' length. Each looks at all variates, which clusters better here than a
    random subset of them. Every output keeps the length T, and is read only where the series has values.
    """
    x, seen = z_scored(X)
    at = seen.any(1)                                                           # (N, T)
    (_, D, T), draw = x.shape, lambda: torch.rand((), generator=generator).item()
    features = []
    for _ in range(n_kernels):
        taps = (7, 9, 11)[int(3 * draw())]
        dilation = int(2 ** (draw() * max(0.0, math.log2((T - 1) / (taps - 1)))))
        weight = torch.randn(1, D, taps, generator=generator)
        weight = weight - weight.mean(2, keepdim=True)
        y = F.conv1d(x, weight, dilation=dilation, padding=dilation * (taps // 2))[:, 0]  # (N, T)
        y = y + 2 * draw() - 1
        features += [y.masked_fill(~at, -math.inf).amax(1), ((y > 0) & at).sum(1) / at.sum(1)]
    return torch.stack(features, 1)                                            # (N, 2 n_kernels)


def principal(features, p=32):
    """The first p principal components (N, p) of the standardised features (N, q); p <= min(N, q)."""
    centred = features - features.mean(0)
    std = centred.std(0)
    U, S, _ = torch.linalg.svd(torch.where(std > 1e-6, centred / std, 0), full_matrices=False)
    return (U * S)[:, :p]                                                      # (N, p)


def kernel_kmeans(X, n_clusters, seed, unit=False, n_kernels=1000):
    """k-means on 32 components of the random kernels' features; with `unit`, on rows of length 1."""
    E = principal(random_kernels(X, n_kernels, torch.Generator().manual_seed(seed)))
    return kmeans(F.normalize(E, dim=1) if unit else E, n_clusters, n_init=10, seed=seed).labels
