"""Tests of the static masks: by hand where it can be, and what all of them promise."""

import masks
import numpy as np
import pytest


def kept(kind, rows, keep, seed=0):
    """The mask of one variate, rows (N, T), as a list of the timestamps kept in each row."""
    mask = masks.static_mask(kind, np.array(rows, dtype=np.float32)[:, :, None], keep, seed)
    return [np.flatnonzero(row).tolist() for row in mask[:, :, 0]]


def test_uniform_takes_evenly_spaced_timestamps():
    X = np.random.default_rng(0).normal(size=(2, 10))
    # timestamp t is kept where floor(t keep + 1/2) grows by one
    wanted = {0.5: [0, 2, 4, 6, 8], 0.2: [2, 7], 0.7: [0, 2, 3, 4, 6, 7, 9], 0.0: [4]}
    for keep, timestamps in wanted.items():
        assert kept("uniform", X, keep) == [timestamps] * 2


def test_variance_takes_the_windows_that_vary_most():
    # one step up between 4 and 5: of the windows of five, those around 4 and 5 hold 3 of one
    # level and 2 of the other, those around 3 and 6 only one, and all others none
    X = [[0, 0, 0, 0, 0, 9, 9, 9, 9, 9]]
    assert kept("variance", X, 0.2) == [[4, 5]] and kept("variance", X, 0.4) == [[3, 4, 5, 6]]
    # at the ends the window is shorter: around 0 it is (9, 0, 0), variance 18, around 1 (9, 0, 0,
    # 0), variance 15.2, around 2 (9, 0, 0, 0, 0), variance 13
    X = [[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert [kept("variance", X, k)[0] for k in (0.1, 0.2, 0.3)] == [[0], [0, 1], [0, 1, 2]]


def test_frequency_takes_where_the_series_flickers():
    # +1, -1, ... is the highest frequency there is; the wave beside it is the lowest
    t = np.arange(32)
    slow = np.sin(2 * np.pi * t / 32)
    flicker = np.where(t < 16, (-1.0) ** t, 0)
    (first,) = kept("frequency", [slow + flicker], 0.5)
    assert len(first) == 16 and sum(k < 16 for k in first) >= 14
    (second,) = kept("frequency", [slow + flicker[::-1]], 0.5)
    assert sum(k >= 16 for k in second) >= 14


@pytest.mark.parametrize("kind", masks.KINDS)
@pytest.mark.parametrize("keep", (0.1, 0.36, 0.9))
def test_the_share_kept_is_the_share_asked_for(kind, keep):
    X = np.random.default_rng(1).normal(size=(20, 50, 3)).astype(np.float32)
    mask = masks.static_mask(kind, X, keep)
    assert mask.shape == X.shape and mask.dtype == bool
    exact = {"random": round(keep * X.size) / X.size}.get(kind, np.round(keep * 50) / 50)
    assert mask.mean() == pytest.approx(exact)
    assert masks.static_mask(kind, X, 1.0).all()
    if kind in ("variance", "frequency"):  # the same share of each variate of each sample
        assert (mask.sum(1) == mask.sum(1)[0, 0]).all()
    if kind == "uniform":
        assert (mask == mask[:1, :, :1]).all()


def test_random_follows_the_seed():
    X = np.zeros((3, 40, 2))
    X[:, ::2] = 1
    a, b, c = (masks.static_mask("random", X, 0.5, seed) for seed in (0, 0, 1))
    assert (a == b).all() and (a != c).any()
    assert len(set(a.sum((1, 2)))) > 1  # drawn over all entries, not sample by sample


@pytest.mark.parametrize("kind", masks.KINDS)
def test_nothing_missing_is_kept(kind):
    X = np.random.default_rng(2).normal(size=(6, 30, 2)).astype(np.float32)
    X[0, 20:] = np.nan
    X[1, ::3, 1] = np.nan
    mask = masks.static_mask(kind, X, 1.0)
    assert (mask == ~np.isnan(X)).all()
    half = masks.static_mask(kind, X, 0.5)
    assert not half[np.isnan(X)].any()
    assert half.sum() == pytest.approx(0.5 * (~np.isnan(X)).sum(), abs=12)


@pytest.mark.parametrize("kind, keep", (("nosuch", 0.5), ("random", 1.5), ("uniform", -0.1)))
def test_what_is_no_mask_is_refused_in_one_line(kind, keep):
    with pytest.raises(ValueError, match=f"no mask {kind} with the share"):
        masks.static_mask(kind, np.ones((2, 5, 1)), keep)
