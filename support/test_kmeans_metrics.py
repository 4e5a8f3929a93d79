"""Further tests of kmeans.py and metrics.py: two processes against one, and the usual libraries."""

import itertools
import math
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import metrics
from kmeans import kmeans

CASES = {  # the options, and how many of the 90 points the first of two ranks holds
    "init": ({"init": [[float(i), 0.0, 1.0] for i in range(4)]}, 30),
    "seed": ({"n_init": 1, "seed": 4}, 45),
    "seeds": ({"n_init": 6, "seed": 3, "max_iter": 1}, 45),  # before several meet in one optimum
    "empty": ({"init": [[0.0] * 3] + [[1e3 + i] * 3 for i in range(3)], "max_iter": 3}, 70),
}


def points():
    rng = np.random.default_rng(0)
    return torch.tensor(
        rng.normal(size=(90, 3)) + 1.5 * rng.normal(size=(4, 3))[np.arange(90) * 4 // 90]
    )


def one_rank(rank, folder):
    """Save what each case gives on this rank: (labels, centers, inertia, n_iter) by name."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(seconds=30), 2, rank)
    found = {}
    for name, (options, cut) in CASES.items():
        share = (points()[:cut], points()[cut:])[rank]
        found[name] = tuple(kmeans(share, 4, group=dist.group.WORLD, **options))
    bad = points()[:5] if rank else points()[:5] * np.nan
    with pytest.raises(ValueError):  # on both ranks, or one would wait for ever
        kmeans(bad, 2, group=dist.group.WORLD)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    # Forked, as the import of torch by a new process would take most of the time.
    mp.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"{r}.pt") for r in (0, 1)]
    for name, (options, _) in CASES.items():
        whole, parts = kmeans(points(), 4, **options), [r[name] for r in ranks]
        assert torch.equal(torch.cat([p[0] for p in parts]), whole.labels), name
        for _, centers, inertia, n_iter in parts:
            assert torch.allclose(centers, whole.centers) and n_iter == whole.n_iter, name
            assert inertia == pytest.approx(whole.inertia), name


def test_kmeans_against_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    X = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    theirs = cluster.KMeans(10, n_init=10, random_state=0).fit(X).inertia_
    assert kmeans(X, 10, seed=0).inertia <= theirs * 1.01
    start = X[:10]
    theirs = cluster.KMeans(10, init=start, n_init=1, algorithm="lloyd").fit(X)
    found = kmeans(X, 10, init=start)
    assert found.inertia == pytest.approx(theirs.inertia_, rel=1e-4)


def test_metrics_against_scikit_learn_and_scipy_at_full_size():
    theirs = pytest.importorskip("sklearn.metrics")
    best = pytest.importorskip("scipy.optimize").linear_sum_assignment
    rng = np.random.default_rng(0)
    y = rng.integers(0, 12, 100_000)
    c = np.where(rng.random(100_000) < 0.6, (y * 5) % 12, rng.integers(0, 9, 100_000))
    assert metrics.nmi(y, c) == pytest.approx(theirs.normalized_mutual_info_score(y, c), abs=1e-9)
    assert metrics.ari(y, c) == pytest.approx(theirs.adjusted_rand_score(y, c), abs=1e-9)
    table = theirs.cluster.contingency_matrix(y, c)
    rows, columns = best(-table)
    assert metrics.accuracy(y, c) == pytest.approx(table[rows, columns].sum() / len(y))


@pytest.mark.parametrize("unit, at", [(1, 3e4), (1e-25, 0), (1e37, 0), (5e36, 2e38)])
def test_kmeans_far_from_the_origin_and_in_any_unit(unit, at):
    X = points().float()
    near, far = kmeans(X, 4, seed=2), kmeans(X * unit + at, 4, seed=2)
    assert torch.equal(near.labels, far.labels) and far.centers.isfinite().all()
    assert far.inertia / unit / unit == pytest.approx(near.inertia, rel=1e-2)
    assert kmeans(X.double() * 1e300, 4, seed=2).centers.isfinite().all()


def test_kmeans_in_small_blocks(monkeypatch):
    """As with one block: E step, M step and seeds. One cluster: the mean."""
    X = torch.tensor(np.random.default_rng(0).normal(size=(700, 3)))
    options = [
        {"seed": 1, "n_init": 2},
        {"init": X[:5]},
        {"init": X[:5] + 1e3 * (torch.arange(5)[:, None] > 2)},
    ]
    whole = [kmeans(X, 5, **more) for more in options]
    monkeypatch.setattr("kmeans.BLOCK", 1)  # 128 points each
    for a, more in zip(whole, options):
        b = kmeans(X, 5, **more)
        assert torch.equal(a.labels, b.labels) and torch.allclose(a.centers, b.centers)
        assert a.inertia == pytest.approx(b.inertia) and a.n_iter == b.n_iter
    assert torch.allclose(kmeans(X, 1).centers[0], X.mean(0))


@pytest.mark.parametrize("seed", range(5))
def test_empty_clusters_move_to_the_farthest_points(seed):
    """Two are empty: the first takes the point farthest from all centres, then the second."""
    X = np.random.default_rng(seed).normal(size=(30, 2)) + [5, -3]
    start = np.concatenate([X[:2], [[1e3, 0], [0, 1e3]]])
    found, centers = kmeans(X, 4, init=start, max_iter=1).centers.numpy(), list(X[:2])
    for j in (2, 3):
        centers.append(max(X, key=lambda x: min(((x - c) ** 2).sum() for c in centers)))
        assert np.allclose(found[j], centers[j])


ONES = torch.ones(3, 2)


@pytest.mark.parametrize(
    "X, k, more, told",
    [
        (ONES, 4, {}, "n_clusters <= 3; got n_clusters=4, n_init=10, max_iter=300"),
        (ONES, 0, {}, "whole numbers >= 1"),
        (ONES, 1.5, {}, "whole numbers >= 1"),
        (ONES * math.nan, 2, {}, "X contains NaN or infinite values"),
        (torch.tensor([[1.0], [-math.inf]]), 1, {}, "X contains NaN or infinite values"),
        (ONES[0], 1, {}, "X must have shape .N, d. with N, d >= 1; got .2,"),
        (ONES[:0], 1, {}, "X must have shape .* got .0, 2"),
        (ONES, 1, {"n_init": 0}, "n_init=0"),
        (ONES, 1, {"max_iter": 0}, "max_iter=0"),
        (ONES, 2, {"init": torch.ones(1, 2)}, "init must be finite, of shape .2, 2.; got .1, 2"),
        (ONES, 1, {"init": torch.full((1, 2), math.nan)}, "init must be finite"),
    ],
)
def test_kmeans_errors(X, k, more, told):
    with pytest.raises(ValueError, match=told):
        kmeans(X, k, **more)


def test_match_against_all_matches():
    """Small numbers; and large ones of which many rows want the same: wars of bids."""
    shapes = [(6, 6), (4, 7), *itertools.product((1, 2, 3, 4, 5), (5,)), *[(3, 4)] * 20]
    for seed, (r, c) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        war = rng.integers(10**6, 10**6 + 5, (r, c)) * (np.arange(c) < 2)
        orders = np.array(list(itertools.permutations(range(c), r)))
        for table in (war, rng.integers(0, 5, (r, c))):
            best = table[np.arange(r), orders].sum(1).max()
            for given in (table, table.T):
                rows, cols = metrics.match(given)
                assert given[rows, cols].sum() == best and len({*rows}) == len({*cols}) == r
    # Each of these fails if the least raise, of 1, were above 1 / n of a whole benefit.
    for table, best in (([[1, 2, 3], [1, 2, 2], [2, 0, 3]], 7),
                        ([[1, 3, 1, 0], [2, 3, 2, 0], [3, 0, 1, 1], [3, 3, 2, 0]], 9)):  # fmt: skip
        assert np.array(table)[metrics.match(table)].sum() == best
    for bad in (np.ones(3, int), np.ones((0, 2), int), np.ones((2, 2)), -np.eye(2, dtype=int)):
        with pytest.raises(ValueError, match="need a 2-d table of integers >= 0, got .*[(]"):
            metrics.match(bad)


def test_metrics_of_many_classes():
    y = np.arange(300) % 100
    p = (y * 7 + 3) % 100  # other names
    p[:20] = p[20:40]
    assert metrics.accuracy(y, p) == pytest.approx(280 / 300)
    # A class that lost a third: 2 * 2 / (3 + 2); its cluster's new home: 2 * 3 / (3 + 4).
    assert metrics.f1(y, p) == pytest.approx((60 + 20 * 4 / 5 + 20 * 6 / 7) / 100)


@pytest.mark.parametrize(
    "y, told",
    [
        ([], "at least one label, got shape .0"),
        ([[1]], "at least one label, got shape .1, 1"),
        ([1, None, 2], "no missing label"),
        ([1.0, math.nan, 2.0], "no missing label"),
        (["a", 1, "b"], "no missing label"),
        ([1j, 2, 3], "no missing label"),
        ([1, 2], "of one length, got [23] and [23]"),
    ],
)
def test_metrics_errors(y, told):
    for given, name in (((y, [1, 2, 3]), "y_true"), (([1, 2, 3], y), "y_pred")):
        with pytest.raises(ValueError, match=f"^{name}.*{told}|^y_true and.*{told}"):
            metrics.scores(*given)
