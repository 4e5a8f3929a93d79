"""Laws that hold for any input, tried on inputs that hypothesis draws (the same ones each time)."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import metrics
from emtc import EMTC, z_scored
from kmeans import kmeans
from uea_loader import load

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def law(examples, **drawn):
    """A test of `examples` draws, without a database of failures and without a limit of time."""
    settings = hypothesis.settings(
        max_examples=examples, derandomize=True, database=None, deadline=None
    )
    return lambda test: settings(hypothesis.given(**drawn)(test))


@law(40, rng=SEEDS, n=st.integers(1, 60), r=st.integers(1, 6), c=st.integers(1, 6))
def test_metrics_know_neither_the_order_of_samples_nor_names(rng, n, r, c):
    y, p = rng.integers(0, r, n), rng.integers(0, c, n)
    want = metrics.scores(y, p)
    order, names = rng.permutation(n), rng.permutation(100)
    assert metrics.scores(y[order], p[order]) == pytest.approx(want)
    assert metrics.scores(names[y], [f"name {names[j]}" for j in p]) == pytest.approx(want)
    turned = metrics.scores(p, y)  # F1 is a mean over the classes, the others are symmetric
    assert all(turned[m] == pytest.approx(want[m]) for m in ("ACC", "NMI", "ARI"))


@law(25, rng=SEEDS, n=st.integers(4, 60), d=st.integers(1, 5), k=st.integers(1, 4))
def test_kmeans_follows_its_points(rng, n, d, k):
    """Other order: other order of labels. Shift, scale: the centres move with the points."""
    X = rng.normal(size=(n, d)) + 4 * rng.integers(0, 3, (n, 1))
    start, order, names = X[:k], rng.permutation(n), rng.permutation(k)
    found = kmeans(X, k, init=start)
    moved = kmeans(X[order], k, init=start)
    assert torch.equal(moved.labels, found.labels[order])
    renamed = kmeans(X, k, init=start[names])
    assert torch.equal(torch.tensor(names)[renamed.labels], found.labels)
    shift, scale = rng.normal(size=d) * 10, 10.0 ** rng.integers(-6, 6)
    moved = kmeans(scale * X + shift, k, init=scale * start + shift)
    assert torch.equal(moved.labels, found.labels)
    assert np.allclose(moved.centers, scale * found.centers.numpy() + shift)
    assert moved.inertia == pytest.approx(scale**2 * found.inertia, rel=1e-4, abs=scale**2 * 1e-9)


@law(25, rng=SEEDS, N=st.integers(3, 8), T=st.integers(5, 9), D=st.integers(1, 4))
def test_z_scores_know_neither_unit_nor_origin_of_a_variate(rng, N, T, D):
    X = rng.normal(size=(N, T, D)).astype(np.float32)
    X[:, 1:][rng.random((N, T - 1, D)) < 0.2] = np.nan
    unit, origin = 2.0 ** rng.integers(-9, 9, D), rng.integers(-3, 4, D)
    (a, seen_a), (b, seen_b) = z_scored(X), z_scored((unit * (X + origin)).astype(np.float32))
    assert torch.equal(seen_a, seen_b) and torch.allclose(a, b, atol=1e-4)


@law(4, rng=SEEDS, pad=st.integers(1, 7), D=st.integers(1, 3))
def test_padding_at_the_end_changes_nothing(rng, pad, D):
    X = rng.normal(size=(9, 12, D)).astype(np.float32)
    X[::2] = 3 * X[::2] + 5
    X[:, 1:][rng.random((9, 11, D)) < 0.1] = np.nan
    longer = np.pad(X, ((0, 0), (0, pad), (0, 0)), constant_values=np.nan)
    a, b = (EMTC(2, epochs=0).fit(x) for x in (X, longer))
    products = (m.embedding_ @ m.embedding_.T for m in (a, b))  # the sign of an axis is free
    assert np.allclose(*products, atol=1e-3)
    assert metrics.ari(a.labels_, b.labels_) == 1
    assert np.array_equal(a.mask_, b.mask_[:, :12])


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=False)


@law(40, data=st.data(), kind=st.sampled_from(["ts", "arff", "csv", "npz"]))
def test_what_is_written_comes_back(data, kind):
    """Any float32, in series of any length; classes in the header's order, or sorted."""
    N, T, D = (data.draw(st.integers(1, 4)) for _ in "NTD")
    X = np.full((N, T, D), np.nan, np.float32)
    lengths = [data.draw(st.integers(1, T)) for _ in range(N)]
    lengths[0] = T
    for series, n in zip(X, lengths):
        for t in range(n):
            series[t] = [data.draw(FLOATS) for _ in range(D)]
    X[0, 0, 0] = 1.5  # not all are missing
    y = [data.draw(st.integers(0, 2)) for _ in range(N)]
    names, sep = (
        ["z", "b one" if kind in ("arff", "csv") else "b", "k"],
        r"\n" if kind == "arff" else ":",
    )
    rows = [sep.join(",".join(map(repr, v.tolist())) for v in x[:n].T) for x, n in zip(X, lengths)]
    head = "@relation r\n@attribute s relational\n@attribute t numeric\n@end s\n@attribute c "
    texts = {
        "ts": "@classLabel true z b k\n@data\n" + "".join(f"{r}:{names[c]}\n" for r, c in zip(rows, y)),
        "arff": head + "{z,'b one',k}\n@data\n" + "".join(f"'{r}','{names[c]}'\n" for r, c in zip(rows, y)),
        "csv": "id,time,class" + "".join(f",v{j}" for j in range(D)) + "\n"
        + "".join(f"{i},{t},{names[y[i]]}," + ",".join(map(repr, X[i, t].tolist())) + "\n"
                  for i in range(N) for t in range(lengths[i])),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{kind}"
        if kind == "npz":
            np.savez(path, X=X, y=[names[c] for c in y])
        else:
            path.write_text(texts[kind])
        d = load(path)
    assert np.array_equal(d.X, X, equal_nan=True) and d.X.dtype == np.float32
    assert [d.classes[c] for c in d.y] == [names[c] for c in y]
    used = {names[c] for c in y}
    assert d.classes == (names if kind in ("ts", "arff") else sorted(used))
    assert os.path.basename(path).startswith(d.name)
