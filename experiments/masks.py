"""The masks that do not learn (the paper's Fig. 3), to hold the evolving one against."""

import numpy as np
from store import z_scored

KINDS = ("random", "uniform", "variance", "frequency")


def static_mask(kind, X, keep, seed=0):
    """A mask for `EMTC(mask=...)`: X (N, T, D), NaN = missing -> bool (N, T, D), True = keep.

    It keeps the share `keep`, from 0 to 1, of the observed entries, rounded, and no missing one:
    random: of all entries, drawn by `seed`; uniform: of the timestamps, evenly, at least one; of
    each variate of each sample, variance: where a window of five varies most, frequency: where the
    upper half of the spectrum has most energy. ValueError for another kind or share.
    """
    if kind not in KINDS or not 0 <= keep <= 1:
        raise ValueError(f"no mask {kind} with the share {keep}: {', '.join(KINDS)}, 0 to 1")
    x, observed = (v.numpy() for v in z_scored(X))  # (N, T, D)
    N, T, D = x.shape
    if kind == "random":
        score = np.random.default_rng(seed).random((1, x.size, 1))  # all entries in one row
        return highest(score, observed.reshape(1, -1, 1), keep).reshape(x.shape)
    if kind == "uniform":
        steps = np.floor(np.arange(T + 1) * max(keep, 1 / T) + 0.5)
        return observed & (np.diff(steps) > 0)[:, None]
    return highest(variance(x) if kind == "variance" else frequency(x), observed, keep)


def variance(x, window=5):
    """Variance (N, T, D) of the window around each timestamp, which is shorter at the ends."""
    ends = [(0, 0), (window // 2, window // 2), (0, 0)]
    padded = np.pad(x, ends, constant_values=np.nan)
    return np.nanvar(np.lib.stride_tricks.sliding_window_view(padded, window, axis=1), axis=-1)


def frequency(x):
    """Magnitude (N, T, D) of what the upper half of the spectrum makes of each series."""
    spectrum = np.fft.rfft(x, axis=1)
    spectrum[:, : spectrum.shape[1] // 2] = 0
    return np.abs(np.fft.irfft(spectrum, n=x.shape[1], axis=1))


def highest(score, observed, keep):
    """True at the share `keep` of the observed entries with the highest score, along axis 1."""
    order = np.where(observed, -score, np.inf).argsort(1, kind="stable")
    rank = order.argsort(1)  # 0 for the highest score, the missing ones last
    return rank < np.round(keep * observed.sum(1, keepdims=True))
