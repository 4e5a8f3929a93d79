"""What is said about a run, by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support import report
from support.files import csv_text, data_hash, write, write_json

ROOT = Path(__file__).resolve().parent.parent


def seed(labels, change, g=2):
    record = {"clusters": g, "clusters_used": len(set(labels))}
    history = [{"label_change": c} for c in change]
    return {"labels": np.array(labels), "history": history, "record": record}


def test_diagnosis_by_hand(monkeypatch):
    same = {0: seed([0, 0, 1, 1], [1] + [0] * 5), 1: seed([1, 1, 0, 0], [0] * 5)}
    assert report.diagnosis(same)[:2] == (1.0, 0.0)
    assert "looks reliable" in report.diagnosis(same)[2]
    apart = {**same, 2: seed([0, 1, 0, 1], [0, 0.2, 0.2])}  # ARI of the pairs: 1, -.5, -.5
    agreement, change, verdict = report.diagnosis(apart)
    assert agreement == pytest.approx(0) and change == pytest.approx(0.4 / 13)
    assert "agree only" in verdict and "changed" not in verdict
    assert "still changed" in report.diagnosis({0: seed([0, 1], [0.1])})[2]
    assert "stayed empty" in report.diagnosis({0: seed([1, 1], [0])})[2]
    assert report.diagnosis({0: seed([0, 1], [])})[:2] == (None, None)
    assert "one seed only" in report.diagnosis({0: seed([0, 1], [])})[2]
    even = {s: seed(c, [0.05]) for s, c in enumerate(([0, 0, 1, 1], [1, 1, 0, 0]))}
    monkeypatch.setattr(report, "MIN_AGREEMENT", 1.0)
    assert "looks reliable" in report.diagnosis(even)[2]  # at both limits


def test_the_papers_numbers_are_the_tables():
    """The one copy of the paper's numbers, against what two lines of its text print."""
    config = {"data": "NATOPS", "split": "test", "n_clusters": 6, "shape": [180, 51, 24]}
    row = {"ACC": {"mean": 0.6185, "std": 0.0094}, "F1": {"mean": 0.6205, "std": 0.013}}
    assert report.papers_row(config) == row
    tables = report.PAPER["table1"]["datasets"], report.PAPER["table2"]["results"]
    assert len(tables[0]) == 15 and tables[0].keys() == tables[1].keys()
    assert report.table1().splitlines()[10].split() == ["NATOPS", "180", "51", "24", "6"]
    others = [{"data": "Natops"}, {"split": "train"}, {"split": "own"}, {"n_clusters": 5}]
    others += [{"shape": [180, 50, 24]}, {"shape": [180, 51, 23]}, {"data": "RacketSports"}]
    for other in others:
        assert report.papers_row(config | other) is None


def test_stats_are_the_populations():
    rows = [dict.fromkeys(report.METRICS, v) for v in (0.2, 0.4, 0.9)]
    assert report.stats(rows)["F1"] == {"mean": pytest.approx(0.5), "std": pytest.approx(0.2943920)}
    assert report.stats([{}, {}]) is report.stats(None) is None


def test_what_is_printed():
    score = lambda v: {m: {"mean": v, "std": v / 100} for m in report.METRICS}
    results = {"baselines": {"raw_kmeans": score(0.25), "untrained": score(0.5)}, "oracle": None}
    results |= {
        "final": score(0.75),
        "per_seed": [{"seed": 3, **dict.fromkeys(report.METRICS, 1.0)}],
    }
    results |= {"paper": {m: score(0.4)[m] for m in ("ACC", "F1")}, "verdict": "word " * 20}
    assert report.report(results).splitlines() == [
        "last epoch                          ACC           F1          NMI          ARI",
        "  seed 3                          1.000        1.000        1.000        1.000",
        "  mean ± std                .750 ± .007  .750 ± .007  .750 ± .007  .750 ± .007",
        "without training",
        "  k-means on raw values     .250 ± .003  .250 ± .003  .250 ± .003  .250 ± .003",
        "  k-means, untrained net    .500 ± .005  .500 ± .005  .500 ± .005  .500 ± .005",
        "best epoch, uses the labels, as the paper's published code does",
        "  the paper's EMTC          .400 ± .004  .400 ± .004            -            -",
        "word " * 15 + "word",
        "  word word word word",
    ]


def test_silhouette_by_hand():
    three = [[0.0], [1], [5], [20], [22]]  # the first has 1 and 5, (1 + 5) / 2 from its own
    want = [(21 - 3) / 21, (20 - 2.5) / 20, (16 - 4.5) / 16, (18 - 2) / 18, (20 - 2) / 20]
    assert report.silhouette(np.array(three), [0, 0, 0, 1, 1]) == pytest.approx(np.mean(want))
    E = np.array([[0.0], [1], [10], [12], [30]])
    a, b = [1, 1, 2, 2], [min(11, 30), min(10, 29), min(9.5, 20), min(11.5, 18)]
    want = (sum((y - x) / max(x, y) for x, y in zip(a, b, strict=True)) + 0) / 5  # one is alone
    assert report.silhouette(E, [2, 2, 0, 0, 7]) == pytest.approx(want)
    assert report.silhouette(E, [0] * 5) is None
    assert report.silhouette(np.zeros((4, 2)), [0, 0, 1, 1]) == 0
    rng = np.random.default_rng(0)
    E, labels = rng.normal(size=(90, 3)), rng.integers(0, 4, 90)
    peer = pytest.importorskip("sklearn.metrics").silhouette_score
    assert report.silhouette(E, labels) == pytest.approx(peer(E, labels))
    assert report.silhouette(E, labels, most=45) == pytest.approx(peer(E[::2], labels[::2]))


def test_the_suggested_g():
    def row(g, agreement, silhouette, smallest=3):
        return dict(clusters=g, agreement=agreement, silhouette=silhouette, smallest=smallest)

    rows = [row(1, 1.0, None), row(2, 0.9, 0.2), row(3, 0.6, 0.4), row(4, 0.59, 0.8)]
    assert report.suggested(rows) == 3
    assert report.suggested([*rows, row(5, 0.9, 0.9, 0)]) == 3  # one of its clusters is empty
    assert report.suggested([row(2, None, 0.5)]) is report.suggested(rows[:1]) is None


def test_csv_is_safe_and_written_whole(tmp_path):
    cells = ["=1+1", "+x", "-5", "-1E-3", " @a", "-x", "a\x07b\n", 'q",q', "ü", 7]
    want = ["'=1+1", "'+x", "-5", "-1E-3", "' @a", "'-x", "a\\x07b\\n", '"q"",q"', "ü", "7"]
    assert csv_text({"=h": cells}) == "\n".join(["'=h", *want, ""])
    data = SimpleNamespace(
        X=np.zeros((2, 1, 1)), y=np.array([1, 0]), classes=["=b", "c"], ids=["x", "=y"]
    )
    assert report.labels_csv(data, {"s": [4, 5]}) == "sample,id,class,s\n0,x,c,4\n1,'=y,'=b,5\n"
    assert report.labels_csv(data, {"s": [4, 5]}, classes=False) == "sample,id,s\n0,x,4\n1,'=y,5\n"
    with pytest.raises(ValueError):
        csv_text({"a": [1, 2], "b": [1]})
    write_json(tmp_path / "f", {"x": [1]})
    assert (tmp_path / "f").read_text() == '{\n "x": [\n  1\n ]\n}\n'
    write(tmp_path / "f", "old")
    with pytest.raises(ValueError):
        write_json(tmp_path / "f", {"x": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "f", "\ud800")
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]


def test_data_hash_sees_shape_values_and_labels():
    X, y = np.arange(12.0).reshape(2, 3, 2), np.arange(2)
    others = [(X.reshape(2, 2, 3), y), (X + 1e-9, y), (X, y[::-1]), (X, None)]
    assert len({data_hash(*d) for d in [(X, y), *others]}) == 5
    assert data_hash(X[::-1], y) == data_hash(X[::-1].copy(), y.copy())
    assert json.loads((ROOT / "support" / "paper.json").read_text()) == report.PAPER
