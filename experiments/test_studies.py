"""Tests of the experiments: hand-computed values, and each script on made data for an epoch."""

import importlib
import json
import math
import subprocess
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import baselines
import gains
import masks
import numpy as np
import planted
import pytest
import readings
import significance
import store
import study
import table2
import tables
import torch
import visualize
from test_store import toy

from metrics import accuracy, ari, nmi


@pytest.fixture
def script(tmp_path, monkeypatch):
    """script(name, *options) runs it on made data, --quick, and returns its JSON."""
    monkeypatch.setattr(store, "load", lambda name, *_: toy(name.replace(":", " ")))
    out = ["--out", str(tmp_path)]

    def run(name, *more, saved=None, epochs=1):
        file, *first = name.split()
        argv = [*first, "--quick", "--epochs", str(epochs), *out, *more]
        assert not importlib.import_module(file).main(argv)
        saved = saved or name.replace(" ", "_")
        return json.loads((tmp_path / f"{saved}.json").read_text(encoding="utf-8"))

    return run


# ---------------------------------------------------------------- studies


@pytest.mark.slow
@pytest.mark.parametrize("name", study.STUDIES)
def test_every_study_runs_and_fills_its_table(script, name):
    saved, variants = script(f"study {name}"), list(study.STUDIES[name].variants)
    (row,) = saved["table"].values()
    assert list(row) == variants and len(saved["runs"]) == len(variants)
    assert set(saved["paired"]["NMI"]) == set(variants[1:])
    assert all({"ACC", "labels", "curves", "run"} <= r.keys() for r in saved["runs"])
    kept = {v: cell["kept"]["mean"] for v, cell in row.items()}
    if name == "masking":
        assert kept["none"] == 1 and 0 < kept["evolving"] <= 1
        assert all(abs(kept[k] - kept["evolving"]) < 0.03 for k in masks.KINDS)
    if name == "shares":  # each record says what it kept: what was asked for
        assert {f"{k} 1" for k in masks.KINDS} < set(variants) and kept["evolving 0"] == 1
        for kind, share in ((v.split()[0], float(v.split()[-1])) for v in variants[1:]):
            if kind in masks.KINDS:
                assert abs(kept[f"{kind} {share:g}"] - share) < 0.03


def test_studies_are_listed(capsys):
    assert study.main(["--help"]) == 0 and study.main(["nosuch"]) == 2
    out = capsys.readouterr().out
    assert all(name in out for name in study.STUDIES)
    value = float(f"{2 * study.DEFAULTS['tau']:.3g}")
    assert study.around("tau", 2) == {f"tau {value:g}": {"tau": value}}


# ---------------------------------------------------------------- table 2 and who reads it


@pytest.mark.slow
def test_table2_and_its_readers(script, monkeypatch, tmp_path):
    monkeypatch.setattr(baselines.kernel_kmeans, "__defaults__", (50,))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # aeon takes minutes
    more = ("--methods", "--seeds", "0", "1", "--data", "BasicMotions", "Other")
    saved = script("table2", *more, epochs=2)
    row = saved["table"]["BasicMotions"]
    order = ["EMTC", table2.ORACLE, *list(table2.OPTIONS)[1:], *list(table2.BASELINES)[:2]]
    order += [table2.LUCK]
    assert list(row) == [*order, table2.PAPER, table2.RIVAL]
    gain = row[table2.ORACLE]["ACC"]["mean"] - row["EMTC"]["ACC"]["mean"]
    assert gain >= 0 and len(saved["missing"]) == 14 and "Heartbeat" in saved["missing"]
    assert row[table2.PAPER]["ACC"] == {"mean": 0.9083, "std": 0.0656, "method": "EMTC"}
    assert row[table2.RIVAL]["F1"]["mean"] == 0.9749  # Ti-MAE, read off the paper's page
    for r in (r for r in saved["runs"] if "labels" in r):
        for metric, score in (("ACC", accuracy), ("NMI", nmi), ("ARI", ari)):
            assert r[metric] == pytest.approx(score(toy().y, r["labels"]), abs=1e-5)
    before = (tmp_path / "table2.json").read_bytes()
    script("table2", *more, epochs=2)
    assert (tmp_path / "table2.json").read_bytes() == before
    for name in readings.READINGS:
        found = script("readings", name, saved=name)
        assert found["read_hash"] == tables.file_hash(tmp_path / "table2.json")
        assert set(found["table"]) >= {"BasicMotions", "Other"} and found["text"]
    found = script("readings", "protocol", saved="protocol")["table"]["BasicMotions"]
    assert found["selection"] == pytest.approx(gain, abs=1e-5)
    ours = script("significance")["own"]["ACC"]
    assert ours["n_data"] == 2 and "EMTC" in ours["average_rank"]
    assert not {"EMTC frozen", table2.ORACLE} & set(ours["average_rank"])


def test_related_methods_have_untrained_controls(monkeypatch):
    class Fake:
        def __init__(self, g, seed, epochs=9):
            self.epochs = epochs

        def fit_predict(self, X):
            return np.arange(len(X)) % 2 if self.epochs else np.zeros(len(X), int)

    monkeypatch.setattr(table2.importlib, "import_module", lambda name: Namespace(SimMTM=Fake))
    args, methods = Namespace(quick=False), table2.with_controls(["SimMTM"])
    assert [table2.run(args, toy(), m, 0)["ACC"] for m in methods] == [1, 0.5]


def test_luck_floor_by_enumeration():
    assert table2.luck_floor([0, 1], 0, draws=1) == 1.0  # both orders match
    # of the shuffles of 0 0 1 1 a third is right, the others split each class, which scores a half
    mean = np.mean([table2.luck_floor([0, 0, 1, 1], seed, draws=1) for seed in range(600)])
    assert mean == pytest.approx(1 / 3 + 2 / 3 / 2, abs=0.05)
    assert 1 / 3 < table2.luck_floor([0, 1, 2] * 5, 0, 1) < table2.luck_floor([0, 1, 2] * 5, 0) < 1


def test_curves_that_end_early_and_foretelling_by_hand():
    runs = [{"curves": {"kept": row}} for row in ([0.9, 0.8], [0.7, 0.6, 0.5])]
    assert readings.curve(runs, "kept").tolist() == [[0.9, 0.8, 0.8], [0.7, 0.6, 0.5]]
    assert readings.settled([0.5, 0.0, 0.2, 0.01, 0.0]) == 4 and readings.settled([0.0]) == 1
    labelings = [[0, 0, 1, 1], [5, 5, 2, 2], [0, 1, 0, 1]]  # ARI 1, -1/2, -1/2
    assert readings.agreement(labelings) == pytest.approx(0)
    assert readings.agreement(labelings[:1]) is None
    facts = [{"agreement": a, "ACC": 2 * a} for a in (0.1, 0.2, 0.3, 0.4)]
    assert readings.foretells(facts)["without_one"] == pytest.approx([1, 1])
    assert readings.foretells(facts[:3]) is None


# ---------------------------------------------------------------- baselines


def test_random_kernels_by_loop():
    data = toy(N=3, T=13)
    data.X[1, 9:] = np.nan
    features = baselines.random_kernels(data.X, 4, torch.Generator().manual_seed(3))
    x, generator = store.z_scored(data.X)[0].numpy(), torch.Generator().manual_seed(3)

    def draw():
        return torch.rand((), generator=generator).item()

    for k in range(4):
        taps = (7, 9, 11)[int(3 * draw())]
        step = int(2 ** (draw() * max(0, np.log2(12 / (taps - 1)))))
        weight = torch.randn(1, 2, taps, generator=generator)[0].numpy()
        weight, bias = weight - weight.mean(1, keepdims=True), 2 * draw() - 1
        for n, length in enumerate((13, 9, 13)):
            y = [bias] * length
            for t in range(length):
                for j in range(taps):
                    s = t + (j - taps // 2) * step
                    y[t] += weight[:, j] @ x[n, s] if 0 <= s < 13 else 0
            wanted = [max(y), np.mean(np.array(y) > 0)]
            assert features[n, 2 * k : 2 * k + 2].tolist() == pytest.approx(wanted, abs=1e-4)


def test_baselines_find_planted_clusters_and_repeat():
    data = toy(N=30, T=40)
    a, b = (baselines.kernel_kmeans(data.X, 2, 0, n_kernels=100) for _ in range(2))
    assert accuracy(data.y, a) == 1 and (a == b).all()
    X = data.X + 5 * data.y[:, None, None].astype(np.float32)
    X[3, 10:] = np.nan
    assert accuracy(data.y, baselines.raw_kmeans(X, 2, 0)) == 1


def test_dtw_kmeans_asks_aeon(monkeypatch):
    class Fake:
        def __init__(self, n_clusters, **options):
            assert n_clusters == 2 and options["random_state"] == 0

        def fit_predict(self, x):
            assert x.shape == (12, 2, 20) and np.isfinite(x).all()  # (N, D, T)
            return np.arange(12) % 2

    fake = Namespace(TimeSeriesKMeans=Fake)
    monkeypatch.setattr(baselines.importlib, "import_module", lambda name: fake)
    assert accuracy(toy().y, table2.BASELINES["DTW k-means"](toy().X, 2, 0)) == 1


# ---------------------------------------------------------------- planted redundancy


@pytest.mark.parametrize("name", planted.SETS)
def test_the_truth_is_where_the_class_is(name):
    data = planted.planted(name, seed=1)
    N, T, D = data.X.shape
    assert (N, T, D) == (120, 100, 8 if name == "d5" else 4)
    assert np.bincount(data.y).tolist() == [30] * 4
    assert (data.truth.sum(1) == [15, 15] + [0] * (D - 2)).all()  # one window in two variates
    assert (np.abs(np.diff(data.truth[:, :, 0].astype(int), axis=1)).sum(1) <= 2).all()
    assert (data.X == planted.planted(name, seed=1).X).all()
    assert (data.X != planted.planted(name, seed=2).X).any()
    # inside, the series of a class have one mean, of the power of the waves
    inside = np.stack([x[t[:, 0]][:, :2] for x, t in zip(data.X, data.truth)])  # (N, 15, 2)
    means = np.stack([inside[data.y == c].mean(0) for c in range(4)])
    assert np.square(means).mean() == pytest.approx(planted.SETS[name][1] ** 2, rel=0.1)


def test_auc_and_mask_against_truth_by_hand():
    truth = np.array([True, False, False, True]).reshape(1, 4, 1)
    S = np.array([0.9, 0.2, 0.5, 0.5]).reshape(1, 4, 1)  # .9 > .2, .9 > .5, .5 > .2, .5 = .5
    assert planted.auc(S, truth) == 3.5 / 4 and planted.auc(-S, truth) == 0.5 / 4
    mask = np.array([True, False, True, False]).reshape(1, 4, 1)  # hides one redundant, one true
    half = {"precision": 0.5, "recall": 0.5, "lost": 0.5}
    assert planted.against_truth(mask, truth) == half
    none = {"precision": None, "recall": 0, "lost": 0}
    assert planted.against_truth(np.ones_like(truth), truth) == none


@pytest.mark.slow
def test_planted_script(script, monkeypatch, tmp_path):
    make = planted.planted
    monkeypatch.setattr(planted, "planted", lambda name, seed: make(name, seed, N=16, T=40))
    saved = script("planted", "--epsilon", "0.3", "--seeds", "0", "1")
    mean = {row: {m: c["mean"] for m, c in cells.items()}
            for row, cells in saved["table"]["b1"].items()}  # fmt: skip
    assert set(mean) == {*planted.ROWS, "evolving 0.3"}
    assert mean["true mask"]["lost"] == 0 and mean["true mask"]["recall"] == 1
    assert mean["no mask"]["kept"] == 1 and 0 < mean["evolving"]["AUC"] < 1
    assert mean["random"]["kept"] == pytest.approx(mean["evolving"]["kept"], abs=1e-3)
    assert mean["variance 0.3"]["kept"] == pytest.approx(0.3, abs=0.01)
    assert len({r["data_hash"] for r in saved["runs"]}) == 2  # other data for another seed
    assert (tmp_path / "planted.png").exists() == bool(find_spec("matplotlib"))


# ---------------------------------------------------------------- gains


def test_leaving_sets_out_by_hand():
    scores = {"a": {"p": 0.1, "q": 0.1, "r": 0.1}, "b": {"p": 0.9, "q": -0.5, "r": 0.0}}
    found = gains.leave_out(scores)
    # sums without p: a .2, b -.5; without q: a .2, b .9; without r: a .2, b .4
    assert {n: f["chosen"] for n, f in found.items()} == {"p": "a", "q": "b", "r": "b"}
    assert [f["gain"] for f in found.values()] == [0.1, -0.5, 0.0]
    both = gains.leave_out({"a": {"A": 0.2, "A train": 0.4, "B": 1.0}})  # a set of two splits
    assert {n: f["gain"] for n, f in both.items()} == {"A": pytest.approx(0.3), "B": 1.0}


@pytest.mark.slow
def test_gains_script(script):
    saved = script("gains", "--data", "A", "A:train", "B")
    acc = {(r["data"], r["variant"]): r["ACC"] for r in saved["runs"]}
    for control in gains.TITLES:
        d = saved["paired"]["ACC"][control]
        assert d["by_data"]["A"] == pytest.approx(acc["A", "default"] - acc["A", control], abs=1e-5)
    assert list(saved["left_out"]["ACC"]["by_set"]) == ["A", "B"]
    assert set(saved["left_out"]["NMI"]["settings"]) == {"default", *gains.CANDIDATES}


# ---------------------------------------------------------------- before and after training


@pytest.mark.slow
def test_visualize(script, monkeypatch):
    for run in script("visualize")["runs"]:
        assert np.array(run["place"]).shape == (12, 2)
        # clusters are called as the classes they are matched with, so plain equality is ACC
        same = np.mean(np.array(run["labels"]) == np.array(run["y"]))
        assert same == pytest.approx(run["ACC"], abs=1e-5)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    E = np.random.default_rng(0).normal(size=(9, 4)) * [9, 3, 0.1, 0.1]
    place = visualize.plane(E, 0)
    assert place.shape == (9, 2) and abs(np.corrcoef(place[:, 0], E[:, 0])[0, 1]) > 0.99


def test_renaming_by_hand():
    renamed = visualize.renamed(np.array([0, 0, 1, 1, 1]), np.array([2, 2, 0, 0, 1]))
    assert renamed.tolist() == [0, 0, 1, 1, 3]  # cluster 1 has no class: 1 + g


# ---------------------------------------------------------------- significance


def test_average_ranks_and_friedman_by_hand():
    ranks = significance.average_ranks([[0.9, 0.5, 0.5, 0.1], [0.2, 0.3, 0.2, 0.2], [1, 2, 3, 4]])
    assert ranks.tolist() == [[1, 2.5, 2.5, 4], [3, 1, 3, 3], [4, 3, 2, 1]]
    # average ranks 1.25, 2.0, 2.75: chi2 = 12 * 4 / (3 * 4) * (1.25^2 + 2^2 + 2.75^2 - 12) = 4.5
    result = significance.friedman(np.array([[1, 2, 3], [1, 2, 3], [1, 3, 2], [2, 1, 3]], float))
    assert result["chi2"] == pytest.approx(4.5)
    assert result["p"] == pytest.approx(math.exp(-2.25))  # chi2 with two degrees of freedom
    assert significance.friedman(np.full((5, 3), 2.0)) == {"chi2": 0.0, "p": 1.0}


def test_friedman_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).integers(0, 6, (15, 9)) / 5  # many ties
    ranks, theirs = significance.average_ranks(values), stats.friedmanchisquare(*values.T)
    np.testing.assert_allclose(ranks, [stats.rankdata(-row) for row in values])
    mine = significance.friedman(ranks)
    assert (mine["chi2"], mine["p"]) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_critical_difference_and_compare_by_hand():
    # k = 9, n = 15: sqrt(9 * 10 / (6 * 15)) = 1, so the difference is the quantile itself
    assert significance.critical_difference(9, 15) == pytest.approx(2.7344, abs=5e-5)
    means = {f"d{i}": {"EMTC": 0.9, "a": 0.8 if i else 0.95, "b": 0.1} for i in range(20)}
    result = significance.compare(means, "EMTC")
    assert result["average_rank"] == {"EMTC": 1.05, "a": 1.95, "b": 3.0}
    # 2.241 * sqrt(12 / 120) = .709; z at 1 - .01 / 4 is 2.807, times .316 = .888
    assert result["critical_difference"] == pytest.approx({"95": 0.7087, "99": 0.8877}, abs=1e-4)
    assert result["significant"] == {"95": ["a", "b"], "99": ["a", "b"]}
    assert result["beaten_on"] == {"d0": ["a"]}
    assert significance.compare(means, "b")["significant"] == {"95": [], "99": []}


def test_what_the_notes_say_of_three_cells_of_the_papers_table():
    acc, f1 = (significance.published_means(store.PAPER, metric) for metric in ("ACC", "F1"))
    one = [(d, m) for d in acc for m, a in acc[d].items() if abs(f1[d][m] - 2 * a / (1 + a)) < 1e-4]
    assert one == [("Heartbeat", m) for m in ("FEI", "TimesURL", "UNITS")]  # one cluster, one class
    for data, method in one:  # the class without a cluster as 0
        f1[data][method] /= store.PAPER["table1"]["datasets"][data]["g"]
    assert significance.compare(f1, "EMTC")["average_rank"]["EMTC"] == pytest.approx(1.40, abs=5e-3)


def test_what_the_notes_say_of_the_papers_headline_claims():
    gains = {}
    for metric in ("ACC", "F1"):
        means = significance.published_means(store.PAPER, metric).values()
        ours = np.array([row["EMTC"] for row in means])
        others = np.array([[v for m, v in row.items() if m != "EMTC"] for row in means])
        second = others[:, others.mean(0).argmax()]  # the best other on average
        gains[metric] = [
            100 * v
            for best in (others.max(1), second)  # and the best other of each data set
            for v in ((ours - best).mean(), (ours / best - 1).mean(), ours.mean() / best.mean() - 1)
        ]
    points, ratios, _, points_second, _, ratio_second = gains["ACC"]
    assert (points, points_second, ratio_second) == pytest.approx((2.66, 7.09, 12.84), abs=5e-3)
    assert gains["F1"][:2] == pytest.approx((1.60, 5.06), abs=5e-3)
    for metric, found in gains.items():  # no reading gives the number that is claimed
        claimed = store.PAPER["claims"][metric]["percent"]
        assert all(abs(v - claimed) > 0.1 for v in found)


@pytest.mark.slow
def test_significance_of_the_published_table_from_anywhere(tmp_path):
    path = Path(__file__).with_name("significance.py")
    command = [sys.executable, str(path), "--quick", "--out", "r"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "nothing to rank yet" in done.stdout
    saved = json.loads((tmp_path / "r" / "significance.json").read_text())
    for metric, rank in (("ACC", 1.267), ("F1", 1.6)):
        r = saved["published"][metric]
        assert r["average_rank"]["EMTC"] == pytest.approx(rank, abs=5e-4) and r["n_data"] == 15
        assert sum(r["average_rank"].values()) == pytest.approx(45, abs=1e-3)  # 1 + ... + 9
    assert saved["own"] == {}
