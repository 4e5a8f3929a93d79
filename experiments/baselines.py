"""What a user would try before EMTC: k-means on raw values, on random kernels, and under DTW.

X is (N, T, D), NaN = missing or padding; each function returns labels (N,) int64 and reads none.
"""

import importlib
import math

import numpy as np
import torch
import torch.nn.functional as functional
from store import z_scored  # the one z-score of the project

from kmeans import kmeans


def raw_kmeans(X, n_clusters, seed):
    """k-means on the z-scored values, flattened; missing values stand as the variate's mean."""
    return kmeans(z_scored(X)[0].flatten(1), n_clusters, n_init=10, seed=seed).labels


def random_kernels(X, n_kernels, generator):
    """Features (N, 2 n_kernels): maximum and share of positives of random dilated convolutions.

    As Dempster et al. 2020 (arXiv 1910.13051) draw them: 7, 9 or 11 taps, normal, their mean
    removed; bias in (-1, 1); dilation 2^u up to the series' length. Each looks at all variates,
    which clusters better here than a random subset of them. Every output keeps the length T, and is
    read only where the series has values.
    """
    x, seen = (v.transpose(1, 2) for v in z_scored(X))  # (N, D, T)
    at, (_, D, T) = seen.any(1), x.shape  # at (N, T)

    def draw():
        return torch.rand((), generator=generator).item()

    features = []
    for _ in range(n_kernels):
        taps = (7, 9, 11)[int(3 * draw())]
        dilation = int(2 ** (draw() * max(0.0, math.log2((T - 1) / (taps - 1)))))
        weight = torch.randn(1, D, taps, generator=generator)
        weight = weight - weight.mean(2, keepdim=True)
        padding = dilation * (taps // 2)
        y = functional.conv1d(x, weight, dilation=dilation, padding=padding)[:, 0]  # (N, T)
        y = y + 2 * draw() - 1
        features += [y.masked_fill(~at, -math.inf).amax(1), ((y > 0) & at).sum(1) / at.sum(1)]
    return torch.stack(features, 1)  # (N, 2 n_kernels)


def principal(features, p=32):
    """The first p <= min(N, q) principal components (N, p) of standardised features (N, q)."""
    centred = features - features.mean(0)
    std = centred.std(0)
    U, S, _ = torch.linalg.svd(torch.where(std > 1e-6, centred / std, 0), full_matrices=False)
    return (U * S)[:, :p]  # (N, p)


def kernel_kmeans(X, n_clusters, seed, n_kernels=1000):
    """k-means on 32 components of random kernels' features, each row brought to length 1."""
    E = principal(random_kernels(X, n_kernels, torch.Generator().manual_seed(seed)))
    return kmeans(functional.normalize(E, dim=1), n_clusters, n_init=10, seed=seed).labels


def dtw_kmeans(X, n_clusters, seed):
    """k-means under dynamic time warping, by barycentres, on the z-scored series; missing is 0.

    It is aeon's, which only this row needs: pip install aeon.
    """
    options = {"distance": "dtw", "averaging_method": "ba", "n_init": 1, "max_iter": 50}
    estimator = importlib.import_module("aeon.clustering").TimeSeriesKMeans
    x = z_scored(X)[0].transpose(1, 2).double().numpy()  # aeon wants (N, D, T)
    model = estimator(n_clusters, random_state=seed, **options)
    return np.asarray(model.fit_predict(x), dtype=np.int64)
