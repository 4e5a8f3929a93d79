"""k-means, metrics, the loader and the command line: what a user of each relies on.

The oracles are values by hand, loops and brute force; scikit-learn and scipy are not needed.
"""

import inspect
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import emtc
import metrics
import train
import uea_loader
from emtc import EMTC
from kmeans import _plus_plus, kmeans
from metrics import accuracy
from uea_loader import DataError, load

ROOT = Path(__file__).parent.parent

# ------------------------------------------------------------------ kmeans.py


def blobs(n=200, d=5, k=4, seed=0):
    """Normal blobs of unit variance, rows 0, k, 2k, ... from the same one: X (n, d) float32."""
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(k, d))[np.arange(n) % k]
    return torch.tensor(rng.normal(size=(n, d)) + centers, dtype=torch.float32)


def loop_kmeans(X, C, max_iter=300, tol=1e-4):
    """Lloyd's algorithm for float64 numpy -> labels, centres, inertia, n_iter."""
    for it in range(1, max_iter + 1):
        labels = ((X[:, None] - C) ** 2).sum(2).argmin(1)
        new = np.array([X[labels == j].mean(0) for j in range(len(C))])
        shift, C = ((new - C) ** 2).sum(), new
        if shift <= tol * X.var(0).mean():
            break
    distance = ((X[:, None] - C) ** 2).sum(2)
    return distance.argmin(1), C, distance.min(1).sum(), it


def test_kmeans_by_hand():
    X = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    found = kmeans(X, 2, seed=0)
    assert sorted(found.centers.flatten().tolist()) == [0.5, 11.0]
    assert found.inertia == pytest.approx(2.5) and found.labels.dtype == torch.int64
    assert len(set(found.labels[:2].tolist())) == len(set(found.labels[2:].tolist())) == 1
    assert len(kmeans(X, 5).labels.unique()) == 5
    backwards = kmeans(X.numpy()[::-1], 2, init=found.centers)
    assert torch.equal(backwards.labels.flip(0), found.labels)


LLOYD = [{}, {"tol": 0.05}, {"tol": 0.0}, {"max_iter": 1}, {"max_iter": 3, "tol": 0.05}]


@pytest.mark.parametrize("options", LLOYD)
def test_kmeans_is_lloyds_algorithm(options):
    """Labels, centres, inertia and the number of iterations of a loop from the same start."""
    X = 3 * torch.tensor(np.random.default_rng(1).normal(size=(2000, 3)))
    before = X.clone()
    found = kmeans(X, 9, init=X[:9], **options)
    labels, centers, inertia, n_iter = loop_kmeans(X.numpy(), X[:9].numpy(), **options)
    assert found.labels.tolist() == labels.tolist() and np.allclose(found.centers, centers)
    assert found.inertia == pytest.approx(inertia) and found.n_iter == n_iter
    assert torch.equal(X, before)
    if not options:  # the default tolerance: no other one ends after as many iterations
        ends = [loop_kmeans(X.numpy(), X[:9].numpy(), tol=tol)[3] for tol in (1e-3, 1e-5)]
        assert ends[0] < n_iter < ends[1]


def test_kmeans_returns_the_best_restart():
    X = blobs(120, 2, 12, seed=3)
    single = [kmeans(X, 12, n_init=1, seed=s).inertia for s in range(15)]
    many = kmeans(X, 12, n_init=15, seed=torch.Generator().manual_seed(5))
    assert len({round(v, 2) for v in single}) > 5 and many.inertia <= sorted(single)[3]


def test_kmeans_seeds_are_spread():
    """Five tight, distant pairs: a seed takes one of the farthest, so one step finds all pairs."""
    X = torch.tensor([[float(i % 5) ** 2 * 100 + i / 50, 0.0] for i in range(10)])
    found = [kmeans(X, 5, n_init=1, seed=s, max_iter=1) for s in range(20)]
    assert all(f.inertia == pytest.approx(5 * 0.1**2 / 2, rel=0.01) for f in found)
    assert len({int(f.labels[0]) for f in found}) > 2, "the first seed is any point"


def test_kmeans_takes_the_best_of_its_candidates():
    """k-means++ by loops: of t points, the farther the likelier, the one that leaves least."""
    x, k, R, t = blobs(40, 2, 6, seed=1).double().numpy(), 5, 3, 2 + int(math.log(5))
    u = torch.rand(k, R, t, generator=torch.Generator().manual_seed(7), dtype=torch.float64).numpy()
    got = _plus_plus(torch.from_numpy(x), k, R, torch.Generator().manual_seed(7), None)
    for r in range(R):
        centres = [x[int(u[0, r, 0] * len(x))]]
        for j in range(1, k):
            near = np.min([((x - c) ** 2).sum(1) for c in centres], axis=0)
            tries = [x[(near.cumsum() <= share * near.sum()).sum()] for share in u[j, r]]
            left = [np.minimum(near, ((x - c) ** 2).sum(1)).sum() for c in tries]
            centres.append(tries[int(np.argmin(left))])
        np.testing.assert_allclose(got[r], centres)


def test_kmeans_refills_empty_clusters_and_survives_duplicates():
    X = blobs()
    found = kmeans(X, 4, init=torch.cat([X[:1], torch.full((3, 5), 1e3)]))
    assert len(found.labels.unique()) == 4 and found.centers.isfinite().all()
    line = torch.tensor([[0.0], [1.0], [2.0], [30.0]])  # all near the first start, 30 is farthest
    found = kmeans(line, 2, init=[[0.0], [1e3]], max_iter=2)
    assert found.labels.tolist() == [0, 0, 0, 1] and found.centers.tolist() == [[1.0], [30.0]]
    same = kmeans(torch.full((6, 2), 7.0), 3)
    assert same.inertia == 0 and (same.centers == 7).all()


def test_kmeans_repeats_and_leaves_the_callers_rng_alone():
    X, before = blobs(), torch.get_rng_state()
    a, b = kmeans(X, 9, n_init=1, seed=2), kmeans(X.numpy(), 9.0, n_init=1, seed=np.int64(2))
    assert torch.equal(a.labels, b.labels) and a.inertia == b.inertia
    rng = torch.Generator().manual_seed(2)
    c, d = (kmeans(X, 9, n_init=1, seed=rng) for _ in "ab")
    assert torch.equal(a.labels, c.labels) and not torch.equal(c.labels, d.labels)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------ metrics.py


def test_metrics_by_hand():
    """Table [[3, 1], [0, 2], [1, 0]]: entropies of classes and clusters differ, a class is left."""
    y, c = list("aaaabbc"), [5, 5, 5, 2, 2, 2, 5]
    got = metrics.scores(y, c)
    H = [-sum(m / 7 * math.log(m / 7) for m in sizes) for sizes in ((4, 2, 1), (4, 3))]
    cells = [(3, 4, 4), (1, 4, 3), (2, 2, 3), (1, 1, 4)]
    mutual = sum(m / 7 * math.log(7 * m / (a * b)) for m, a, b in cells)
    assert got["ACC"] == pytest.approx(5 / 7) and got["F1"] == pytest.approx((6 / 8 + 4 / 5) / 3)
    assert got["NMI"] == pytest.approx(mutual / (sum(H) / 2))
    both, A, B, pairs = 3 + 1, 6 + 1, 6 + 3, 21
    assert got["ARI"] == pytest.approx((both - A * B / pairs) / ((A + B) / 2 - A * B / pairs))
    assert all(type(v) is float for v in got.values()) and list(got) == ["ACC", "F1", "NMI", "ARI"]


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_and_f1_against_all_matches(seed):
    """The highest ACC, and among its matches the highest F1, by trying each permutation."""
    rng = np.random.default_rng(seed)
    r, c, n = rng.integers(1, 6), rng.integers(1, 6), rng.integers(1, 40)
    y, p = np.unique(rng.integers(0, r, n), return_inverse=True)[1], rng.integers(0, c, n)
    r, wide, best = int(y.max()) + 1, max(r, c), (0, 0)
    hits = [[sum((y == i) & (p == j)) for j in range(wide)] for i in range(r)]
    sizes = [[sum(y == i) + sum(p == j) for j in range(wide)] for i in range(r)]
    for order in itertools.permutations(range(wide), r):
        right = sum(hits[i][j] for i, j in enumerate(order))
        terms = sum(2 * hits[i][j] / sizes[i][j] for i, j in enumerate(order))
        best = max(best, (right / n, terms / r))
    names = [f"cluster {j}" for j in p]
    for given in torch.tensor(p), names, np.array(names, dtype=object):
        assert (metrics.accuracy(y, given), metrics.f1(y, given)) == pytest.approx(best)


def test_metrics_at_the_edges():
    for y, c in (([0], [7]), ([0, 1, 2], [2, 0, 1]), ([0, 0, 0], [1, 1, 1])):
        assert tuple(metrics.scores(y, c).values()) == pytest.approx((1, 1, 1, 1))
    assert metrics.ari([0, 1, 0, 1], [0, 0, 1, 1]) == -0.5 and metrics.nmi([0, 0], [0, 1]) == 0
    for r, c in itertools.product(range(2, 12), repeat=2):  # no rounding leads out of 0 .. 1
        apart = np.divmod(np.arange(r * c), c)
        same = np.repeat(np.arange(r), np.arange(c, c + r))
        assert 0 <= metrics.nmi(*apart) < 1e-9 and 1 - 1e-9 < metrics.nmi(same, same) <= 1
    # Products of numbers of pairs beyond 2^63: n classes, their halves as clusters.
    n, m = 150_000, 150_000 // 6
    both = B = 6 * (m * (m - 1) // 2)
    A, pairs = 3 * (m * (2 * m - 1)), n * (n - 1) // 2
    want = Fraction(2 * (both * pairs - A * B), (A + B) * pairs - 2 * A * B)
    big = np.arange(n) % 6
    assert metrics.ari(big // 2, big) == float(want)


# ------------------------------------------------------------------ uea_loader.py

TS = "@problemName t\n@classLabel true b a\n@data\n"
ARFF = "@relation t\n@attribute s relational\n@attribute t0 numeric\n@end s\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMTC_DATA", str(tmp_path / "cache"))


def read(tmp_path, text, name="x.ts", **options):
    (tmp_path / name).write_text(text)
    return load(tmp_path / name, **options)


def test_bundled_data_and_its_ts_twin(tmp_path):
    """.arff against a reader of three lines; .ts written from the same numbers is equal."""
    d = load("BasicMotions", "train")
    folder = Path(uea_loader.__file__).parent / "data" / "BasicMotions"
    text = (folder / "BasicMotions_TRAIN.arff").read_text().split("@data\n")[1]
    rows = [re.match("'(.*)',(.*)", line).groups() for line in text.splitlines()]
    want = [[[float(v) for v in c.split(",")] for c in bag.split("\\n")] for bag, _ in rows]
    assert d.X.shape == (40, 100, 6) and d.X.dtype == np.float32 and d.y.dtype == np.int64
    assert np.array_equal(d.X, np.transpose(want, (0, 2, 1)).astype(np.float32))
    assert d.classes == ["Standing", "Running", "Walking", "Badminton"]  # the header's order
    assert [d.classes[i] for i in d.y] == [label for _, label in rows]
    ts = TS.replace("b a", " ".join(d.classes))
    ts += "\n".join(bag.replace("\\n", ":") + ":" + label for bag, label in rows)
    twin = read(tmp_path, ts)
    assert np.array_equal(twin.X, d.X) and np.array_equal(twin.y, d.y) and d.ids is None
    rackets = load("RacketSports", "all")
    assert rackets.X.shape == (303, 30, 6) and np.bincount(rackets.y).tolist() == [79, 86, 70, 68]


def test_missing_values_and_unequal_lengths_are_nan(tmp_path):
    want = [[[1, 4], [np.nan, 5], [3, np.nan]], [[6, 7], [np.nan] * 2, [np.nan] * 2]]
    csv = "id,time,b,class,c\nr,3,3,z,\nr,1,1,z,4\nq,1,6,a,7\nr,2,NaN,z,5\n"
    for name, text in (
        ("x.ts", TS + "1,?,3:4,5:b\n6:7:a\n"),
        ("x.arff", ARFF + "@attribute k {'b',a}\n@data\n'1,NaN,3\\n4,5',b\n'6\\n7',a\n"),
        ("x.csv", csv),
    ):
        d = read(tmp_path, text, name)
        assert np.array_equal(d.X, want, equal_nan=True) and d.X.dtype == np.float32
    assert (d.y.tolist(), d.classes, d.ids) == ([1, 0], ["a", "z"], ["r", "q"])
    np.savez(tmp_path / "x.npz", X=want, y=[1000001.0, 1000002.0])
    d = load(tmp_path / "x.npz")
    assert np.array_equal(d.X, want, equal_nan=True) and d.classes == ["1000001", "1000002"]


def test_one_label_map_for_both_splits_train_first(tmp_path):
    (tmp_path / "M").mkdir()
    read(tmp_path / "M", TS + "1,2:a\n", "M_TRAIN.ts")
    read(tmp_path / "M", TS.replace("b a", "c a b") + "#" * 70_000 + "\n1:c\n2:b\n", "M_TEST.ts")
    for split, y in (("train", [1]), ("test", [2, 0]), ("all", [1, 2, 0])):
        for d in (load(tmp_path / "M", split), load("M", split, data_dir=tmp_path)):
            assert (d.classes, d.y.tolist(), d.name) == (["b", "a", "c"], y, "M")
    assert d.X.shape == (3, 2, 1) and np.isnan(d.X[1:, 1]).all()


@pytest.mark.parametrize("field", ["1.2.3", "1_0", "a", "inf", "1e39", "1 2", "0x1"])
def test_users_mistakes_are_one_line(tmp_path, field):
    with pytest.raises(DataError, match=rf"x\.ts:5: '{field}' is no finite number"):
        read(tmp_path, TS + f"1:b\n2,{field}:a\n")
    for name in ("BasicMotion", "../M", "no.ts", "Epilepsy"):
        with pytest.raises(DataError, match="close matches: BasicMotions|no such file|by hand"):
            load(name, download=False)


# ------------------------------------------------------------------ train.py


def run_train(folder, *options):
    """train.py, quietly; returns (results.json, labels.csv as rows)."""
    assert train.main(["--quiet", "--out", str(folder), *options]) == 0
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    return json.loads((folder / "results.json").read_text()), rows


def test_train_as_a_user_runs_it(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "--data", "BasicMotions", "--epochs", "1"]
    command += ["--starts", "1"]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # two threads crawl on a busy machine
    done = subprocess.run(
        [*command, "--seeds", "0", "1"], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == ""
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    folder = tmp_path / "runs" / "BasicMotions"
    found = json.loads((folder / "results.json").read_text())
    assert (found["data"], found["split"], found["shape"]) == ("BasicMotions", "test", [40, 100, 6])
    assert found["seeds"] == [r["seed"] for r in found["per_seed"]] == [0, 1]
    assert found["paper"] == {
        "ACC": {"mean": 0.9083, "std": 0.0656},
        "F1": {"mean": 0.9057, "std": 0.0675},
    }
    assert (
        len((folder / "log.jsonl").read_text().splitlines()) == 2 and len(found["data_hash"]) == 64
    )
    with np.load(folder / "seed_1.npz") as file:
        assert file["importance"].shape == file["mask"].shape == (40, 100, 6)
    data = load("BasicMotions")
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    assert rows[0] == ["sample", "class", "seed_0", "seed_1"] and (folder / "report.html").exists()
    assert [r[1] for r in rows[1:]] == [data.classes[c] for c in data.y]


@pytest.fixture
def noise(tmp_path):
    """No clusters at all, so that every seed, epoch and mask gives other labels: (path, X, y)."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 10, 2)).astype(np.float32), rng.integers(0, 3, 30)
    np.savez(tmp_path / "noise.npz", X=X, y=y)
    return str(tmp_path / "noise.npz"), X, y


def test_scores_are_of_the_last_epoch_and_baselines_of_no_training(tmp_path, noise):
    path, X, y = noise
    options = ["--data", path, "--seeds", "0", "1", "--epochs", "4", "--lr", "0.01", "--oracle"]
    options += ["--starts", "1", "--width", "8"]  # a trial's clusters would stay as long as this
    found, rows = run_train(tmp_path / "run", *options)
    last, best, raw, untrained = [], [], [], []
    for seed in (0, 1):
        epochs, model = [], EMTC(3, epochs=4, lr=0.01, seed=seed, n_starts=1, width=8)
        model.fit(X, on_epoch=lambda m, r, e=epochs: e.append(accuracy(y, m.labels_)))
        last.append(metrics.scores(y, model.labels_))
        best.append(max([*epochs, last[-1]["ACC"]]))
        assert [r[2 + seed] for r in rows] == [f"seed_{seed}", *map(str, model.labels_)]
        raw.append(accuracy(y, kmeans(emtc.z_scored(X)[0].flatten(1), 3, seed=seed).labels))
        first = EMTC(3, epochs=0, seed=seed, n_starts=1, width=8).fit(X)
        untrained.append(metrics.scores(y, first.labels_))
    for metric in ("ACC", "F1", "NMI", "ARI"):  # statistics, not torch or numpy
        values = [s[metric] for s in last]
        assert [r[metric] for r in found["per_seed"]] == values
        want = {"mean": statistics.mean(values), "std": statistics.pstdev(values)}
        assert found["final"][metric] == pytest.approx(want)
        want = statistics.mean(s[metric] for s in untrained)
        assert found["baselines"]["untrained"][metric]["mean"] == pytest.approx(want)
    assert found["baselines"]["raw_kmeans"]["ACC"]["mean"] == pytest.approx(statistics.mean(raw))
    assert [r["ACC"] for r in found["oracle"]["per_seed"]] == best and "labels" in found["oracle"][
        "note"
    ]
    # Without these differences the lines above would show nothing.
    assert raw[0] != raw[1] and untrained[0] != untrained[1]
    assert max(b - s["ACC"] for b, s in zip(best, last, strict=True)) > 0 and found["paper"] is None


def test_labels_and_looking_at_them_change_no_training(tmp_path, noise):
    path, X, y = noise
    np.savez(tmp_path / "shuffled.npz", X=X, y=y[::-1])
    np.savez(tmp_path / "bare.npz", X=X)
    options = ["--seeds", "0", "--epochs", "2", "--starts", "1", "--width", "8", "--data"]
    columns, weights = [], []
    for name, more in (
        ("noise", []),
        ("noise", ["--oracle"]),
        ("shuffled", ["--oracle"]),
        ("bare", []),
    ):
        folder = tmp_path / f"run{len(columns)}"
        found, rows = run_train(
            folder, *options, str(tmp_path / f"{name}.npz"), "--clusters", "3", *more
        )
        columns.append([r[2] for r in rows])
        weights.append(torch.load(folder / "model_seed0.pt", weights_only=True)["state"]["net"])
    assert all(column == columns[0] for column in columns)
    assert all(torch.equal(w[k], weights[0][k]) for w in weights for k in w)
    assert found["final"] is None and {r[1] for r in rows[1:]} == {""}


def test_numbers_that_blow_up_in_the_last_step_are_an_error(tmp_path, noise, capsys):
    assert (
        train.main(
            ["--data", noise[0], "--epochs", "1", "--lr", "1e9", "--out", str(tmp_path / "x")]
        )
        == 2
    )
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "lr" in told[0] and not list((tmp_path / "x").glob("seed_*.npz"))


def test_options_are_those_of_the_estimator(tmp_path, capsys, noise):
    parameters = inspect.signature(EMTC).parameters
    assert set(train.HELP) >= set(parameters) - {"n_clusters", "seed"}, "an option without help"
    assert train.main(["--list"]) == 0 and len(capsys.readouterr().out.splitlines()) == 18
    train.main(["--data", noise[0], "--epochs", "0", "--as-printed", "--max-keys", "7", "--drop", "intra", "mev",
                "--views", "3", "--seeds", "4", "--out", str(tmp_path / "run")])  # fmt: skip
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    given = dict(epochs=0, as_printed=True, max_keys=7, drop=["intra", "mev"], n_views=3, seeds=[4])
    assert (
        config.items()
        >= {**{n: p.default for n, p in parameters.items() if n in ("tau", "lr", "mask")}}.items()
    )
    assert {name: config[name] for name in given} == given


@pytest.mark.parametrize("options, told", [
    (["--data", "BasicMotion"], "BasicMotions"), (["--data", "no.ts"], "no.ts"), (["--clusters", "41"], "41"),
    (["--epochs", "-1"], "epochs"), (["--epochs", "few"], "--epochs"), (["--lr", "nan"], "lr"), (["--tau", "0"], "tau"),
    (["--mask", "mine"], "--mask"), (["--seeds", "0", "-1"], "seed"), (["--device", "tpu"], "device"),
    (["--method", "mug", "--tau", "1"], "--tau"), (["--method", "simmtm", "--tau", "0"], "tau"),
    (["--method", "simmtm", "--oracle"], "--oracle"), (["--model", "m.pt"], "--predict"), (["--bogus"], "--bogus"), (["--jobs", "0"], "--jobs"),
    (["--data", ""], "unknown data set"), (["--device", "meta"], "device meta")])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    try:
        status = train.main(options)
    except SystemExit as end:  # argparse ends the process itself
        status = end.code
    lines = capsys.readouterr().err.splitlines()
    assert (
        status == 2
        and len(lines) == 1
        and lines[0].startswith("train.py: error: ")
        and told in lines[0]
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["simmtm", "nc-vqvae", "mug"])
def test_a_related_method_gives_the_same_report(tmp_path, method):
    found, rows = run_train(tmp_path, "--method", method, "--epochs", "1", "--seeds", "0", "1")
    assert found["method"] == method and found["baselines"]["untrained"] and len(rows) == 41
    assert [seed["epochs"] for seed in found["per_seed"]] == [1, 1]
