"""The experiments that train EMTC: each script run --quick with two epochs, and what its JSON says.

One folder for all of them, so that the runs they share are trained once, as in a real evaluation.
"""

import importlib
import json
from argparse import Namespace

import numpy as np
import pytest
import torch

import common
import baselines
import efficiency
import masks
import protocol
import recorded
import stability
import studies
import table2
import threshold
import visualize
from emtc import EMTC
from metrics import accuracy, ari, nmi


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def script(folder):
    """script(name, *options) runs it in this process and returns its JSON."""
    def run(name, *options):
        argv = ["--quick", "--epochs", "2", "--out", str(folder), "--figures", str(folder), *options]
        assert importlib.import_module(name).main(argv) == 0
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return run


def basic_motions():
    return common.load("BasicMotions", Namespace(data_dir=list(common.DATA_DIRS)))


def toy(N=12, T=20, D=2, seed=0, name="Toy"):
    """Two classes that differ in frequency."""
    rng, t = np.random.default_rng(seed), np.arange(T)[None, :, None]
    y = np.arange(N) % 2
    X = np.sin((1 + 2 * y)[:, None, None] * (t / 3 + rng.random((N, 1, D)))) + rng.normal(size=(N, T, D)) / 5
    return Namespace(X=X.astype(np.float32), y=y, classes=["slow", "fast"], name=name)


def check_table(table, variants, data=("BasicMotions",)):
    assert tuple(table) == data
    for row in table.values():
        assert list(row) == list(variants)
        for cells in row.values():
            for metric in common.METRICS:
                assert (-0.5 if metric == "ARI" else 0) <= cells[metric]["mean"] <= 1
                assert cells[metric]["std"] == 0 and cells[metric]["n"] == 1


# ---------------------------------------------------------------- table 2 and who reads it

def test_table2(script, folder, capsys):
    saved, y = script("table2", "--methods", "SimMTM"), basic_motions().y
    row = saved["table"]["BasicMotions"]
    assert list(row) == ["EMTC", "EMTC oracle epoch", "untrained encoders", "raw k-means", "random kernels",
                         "random kernels, unit", "SimMTM", "SimMTM untrained", "luck floor", "paper's EMTC",
                         "paper's best other"]
    check_table({"BasicMotions": {m: row[m] for m in list(row)[:8]}}, list(row)[:8])
    assert row["EMTC oracle epoch"]["ACC"]["mean"] >= row["EMTC"]["ACC"]["mean"]
    assert 0.25 < row["luck floor"]["ACC"]["mean"] < 0.7 and row["luck floor"]["ACC"]["n"] == 12
    assert row["paper's EMTC"]["ACC"] == {"mean": .9083, "std": .0656, "method": "EMTC"}
    assert row["paper's best other"]["F1"]["mean"] == .9749    # Ti-MAE, read off the paper's page
    for record in saved["runs"]:
        if "labels" in record:
            assert len(record["labels"]) == 40
            for metric, score in (("ACC", accuracy), ("NMI", nmi), ("ARI", ari)):
                assert record[metric] == pytest.approx(score(y, record["labels"]), abs=1e-5)
    says = saved["reliability"]["BasicMotions"]
    assert says["agreement"] is None and 0 <= says["label_change"] <= 1 and says["epochs"] == [2]
    assert saved["averages"]["mean of all"]["cells"]["EMTC"]["ACC"]["mean"] == row["EMTC"]["ACC"]["mean"]
    before, _ = (folder / "table2.json").read_bytes(), capsys.readouterr()
    assert table2.main(["--quick", "--epochs", "2", "--out", str(folder), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| BasicMotions |" in out and ".908" in out and "stored" not in out
    script("table2", "--methods", "SimMTM")
    assert capsys.readouterr().out.count("stored") == 8 and (folder / "table2.json").read_bytes() == before


def test_readmes_hold_the_stored_tables(capsys):
    saved = json.loads((common.ROOT / "results" / "table2.json").read_text(encoding="utf-8"))
    table2.show(saved["table"], saved["averages"], saved["reliability"])
    tables = [part.splitlines()[2:] for part in capsys.readouterr().out.split("\n\n") if part.startswith("|")]
    assert [len(rows) for rows in tables] == [10, 10, 8]  # eight data sets, two means
    for file, rows in zip(("README.md", "related/README.md"), tables):
        text = (common.ROOT / file).read_text(encoding="utf-8")
        for row in rows:
            assert f"| {' | '.join(cell.strip() for cell in row.strip('|').split('|'))} |" in text


def test_significance_takes_our_table(script, folder):
    significance = importlib.import_module("significance")
    script("table2", "--methods", "SimMTM")
    means = significance.own_means(folder / "table2.json", "ACC")["BasicMotions"]
    assert list(means) == ["EMTC", "untrained encoders", "raw k-means", "random kernels", "random kernels, unit",
                           "SimMTM"]


def test_reliability_and_oracle_by_hand():
    run = lambda seed, labels, change: {"data": "A", "variant": "EMTC", "seed": seed, "ACC": .5, "labels": labels,  # noqa: E731
                                        "label_change": change, "epochs": 3, "oracle": {"ACC": .75, "epoch": 2}}
    runs = [run(0, [0, 0, 1, 1], .1), run(1, [1, 1, 0, 0], .3), run(2, [0, 1, 0, 1], None)]
    says = table2.reliability(runs)["A"]
    # ARI of the first two is 1, of either with the third (0 pairs of 2, expected 2 * 2 / 6): -0.5
    assert says["agreement"] == pytest.approx(0) and says["label_change"] == pytest.approx(.2)
    cells = table2.table(runs, {"A": {"ACC": {"EMTC": [.7, .1], "x": [.2, 0], "z": [.6, 0]}}})["A"]
    assert cells["EMTC oracle epoch"]["ACC"]["mean"] == .75 and "F1" not in cells["paper's EMTC"]
    assert cells["paper's best other"]["ACC"] == {"mean": .6, "std": 0, "method": "z"}


# ---------------------------------------------------------------- parts, losses, masks, settings

def test_ablation(script):
    saved = script("ablation")
    check_table(saved["table"], ["EMTC", "without IVM", "without MEV", "without both"])
    at = {r["variant"]: r for r in saved["runs"]}
    assert at["without IVM"]["kept"] == at["without both"]["kept"] == 1 and at["EMTC"]["kept"] < 1
    assert at["without MEV"]["parameters"] == at["without both"]["parameters"] < at["EMTC"]["parameters"]
    for metric in ("ACC", "NMI"):
        for variant, d in saved["paired"][metric].items():
            assert d["mean_difference"] == pytest.approx(at[variant][metric] - at["EMTC"][metric], abs=1e-5)
            assert d["worse"] + d["equal"] + d["better"] == 1
        assert len(saved["paired"][metric]) == 3


def test_loss_ablation(script):
    saved = script("loss_ablation")
    assert len(saved["runs"]) == 7
    check_table(saved["table"], ["EMTC", *(f"{how} {t}" for how in ("without", "only") for t in (
        "contra", "intra", "inter"))])


def test_masking(script):
    saved = script("masking")
    check_table(saved["table"], ["evolving", "random", "uniform", "variance", "frequency", "none"])
    kept = {r["variant"]: r["kept"] for r in saved["runs"]}
    assert kept.pop("none") == 1 and 0 < kept["evolving"] < 1
    assert all(abs(share - kept["evolving"]) < .05 for share in kept.values())


def test_threshold(script):
    saved = script("threshold", "--grid", "0", "0.6", "1")
    kept = {float(r["variant"]): r["kept"] for r in saved["runs"]}
    assert len(kept) == 4 and recorded.defaults()["epsilon"] in kept
    ordered = [kept[e] for e in sorted(kept)]
    assert ordered == sorted(ordered, reverse=True)
    assert kept[0] == 1 and kept[1] == pytest.approx(1 / 100, abs=1e-5)   # one timestamp of 100 of each variate
    assert threshold.QUICK[0] == 0 and set(threshold.QUICK) <= set(threshold.GRID)


def test_tau(script):
    saved, defaults = script("tau"), recorded.defaults()
    assert len(saved["runs"]) == 7 and list(saved["values"]) == ["tau", "alpha", "beta"]
    for option, values in saved["values"].items():
        assert values["default"] == defaults[option] and len(values) == 3
        assert min(values.values()) < defaults[option] < max(values.values())
    check_table(saved["table"], dict.fromkeys(v for row in saved["values"].values() for v in ["default", *row]))


def test_views(script):
    saved = script("views")
    check_table(saved["table"], list("12345"))
    size = [r["parameters"] for r in sorted(saved["runs"], key=lambda r: int(r["variant"]))]
    assert size == sorted(size) and len(set(size)) == 5


# ---------------------------------------------------------------- over the epochs

def test_convergence(script):
    saved = script("convergence")
    (run,), facts = saved["runs"], saved["table"]["BasicMotions"]
    curves = run["curves"]
    assert all(len(row) == 2 for row in curves.values())
    for at in range(2):
        total = curves["contra"][at] + .1 * 0 + sum(
            recorded.defaults()[w] * curves[t][at] for w, t in (("alpha", "intra"), ("beta", "inter")))
        assert curves["total"][at] == pytest.approx(total, rel=1e-4)
    assert facts["sum_error"] < 1e-4 and facts["total_first"] == curves["total"][0]
    assert facts["share_of_rises"] == float(curves["total"][1] > curves["total"][0])
    assert facts["lowest_total"] == min(curves["total"]) == curves["total"][facts["lowest_at"] - 1]
    assert all(0 < k <= 1 for k in curves["kept"]) and all(0 <= c <= 1 for c in curves["label_change"])


def test_a_run_that_ended_early_keeps_its_last_value():
    runs = [{"data": "A", "curves": {"kept": row}} for row in ([.9, .8], [.7, .6, .5])]
    curve = importlib.import_module("convergence").curve(runs, "A", "kept")
    assert curve.tolist() == [[.9, .8, .8], [.7, .6, .5]]


def test_stability(script):
    saved = script("stability")
    facts, (a, b) = saved["table"]["BasicMotions"], saved["runs"]
    assert (a["seed"], b["seed"]) == (0, 1) and a["labels"] != b["labels"]
    assert facts["agreement"] == pytest.approx(ari(a["labels"], b["labels"]), abs=1e-5)
    for run in (a, b):
        first, second = run["curves"]["step_ari"]
        assert first is None and -.5 <= second <= 1
        assert (run["curves"]["label_change"][1] == 0) <= (second == 1)
    assert saved["correlation_of_agreement_and_ACC"] is None


def test_foretelling_by_hand():
    rows = {n: {"agreement": a, "ACC": c} for n, a, c in (("x", .1, .2), ("y", .2, .4), ("z", .3, .6), ("w", None, 1))}
    assert stability.foretells(rows) == pytest.approx(1)
    assert stability.foretells({n: {**r, "ACC": -(r["agreement"] or 0)} for n, r in rows.items()}) == pytest.approx(-1)
    assert stability.foretells({n: {**r, "ACC": .5} for n, r in rows.items()}) is None


def test_protocol(script):
    saved = script("protocol")
    row, gains = saved["table"]["BasicMotions"], saved["selection"]["BasicMotions"]
    last, best, luck = (row[v]["ACC"]["mean"] for v in (protocol.LAST, protocol.BEST, protocol.LUCK))
    assert 0.25 < luck < 0.7 and last <= best <= 1
    assert gains["selection"] == pytest.approx(best - last, abs=1e-5)
    assert gains["paper_above_luck"] == pytest.approx(.9083 - luck, abs=1e-5)
    assert gains["lowest_epoch"][0] <= last and 1 <= gains["best_at"][0] <= 2
    (run,) = [r for r in saved["runs"] if r["variant"] == protocol.LAST]
    assert run["oracle"]["ACC"] == max([run["ACC"], *run["curves"]["ACC"]])


# ---------------------------------------------------------------- pictures and cost

def test_masks(script):
    saved = script("masks")
    (run,) = saved["runs"]
    at = {epoch: [masks.array(m) for m in row] for epoch, row in run["masks"].items()}
    assert list(at) == ["0", "1", "2"] and all(m.shape == (100, 6) for row in at.values() for m in row)
    assert [basic_motions().y[i] for i in run["samples"]] == [0, 1, 2]
    assert np.mean(at["0"]) == pytest.approx(recorded.defaults()["keep"], abs=.05)
    assert run["overlap_with_last"]["2"] > .5 > run["overlap_with_last"]["0"]
    assert len(run["kept_by_class"]) == 2 and np.mean(run["kept_by_variate"]) == pytest.approx(run["kept"], abs=1e-5)
    assert min(run[f"abs_{v}_{g}"] for v in ("z", "step") for g in ("kept", "masked")) > 0


def test_masks_by_hand():
    keep = np.array([[1, 0], [0, 0], [1, 1]], dtype=bool)                       # (T, D)
    assert masks.text(keep) == ["101", "001"] and (masks.array(masks.text(keep)) == keep).all()
    assert masks.spans(np.array([1, 1, 0, 0, 1, 0, 1], dtype=bool)) == [(0, 2), (4, 5), (6, 7)]
    assert masks.overlap(np.array([1, 0, 0, 1], bool), np.array([1, 1, 0, 0], bool)) == pytest.approx(1 / 3)
    assert masks.overlap(np.ones(3, bool), np.ones(3, bool)) == 1
    assert masks.milestones(200) == [1, 50, 200] and masks.milestones(1) == [1]
    X = np.array([[[1], [-1], [np.nan], [1]], [[-1], [1], [1], [-1]]], dtype=np.float32)  # mean 1/7
    keep = np.array([[[1], [0], [1], [1]], [[1], [0], [1], [0]]], dtype=bool)
    found, scale = masks.properties(X, keep), np.sqrt(48 / 49)
    assert found["abs_z_kept"] == pytest.approx((3 * 6 / 7 + 8 / 7) / 4 / scale, rel=1e-5)
    assert found["abs_step_masked"] == pytest.approx(2 / scale, rel=1e-5)
    assert found["abs_step_kept"] == pytest.approx(0, abs=1e-6)


def test_visualize(script):
    saved = script("visualize")
    assert [r["variant"] for r in saved["runs"]] == ["before", "after"]
    for run in saved["runs"]:
        place = np.array(run["tsne"])
        assert place.shape == (40, 2) and np.isfinite(place).all() and place.std() > 0
        assert 0.25 < run["purity"] <= 1
        # clusters are called as the classes they are matched with, so plain equality is ACC
        assert np.mean(np.array(run["labels"]) == np.array(run["y"])) == pytest.approx(run["ACC"], abs=1e-5)


def test_renaming_and_purity_by_hand():
    assert visualize.renamed(np.array([0, 0, 1, 1, 1]), np.array([2, 2, 0, 0, 1])).tolist() == [0, 0, 1, 1, 2]
    E = np.array([[0.], [1], [2], [10], [11], [12]], dtype=np.float32)
    y = np.array([0, 0, 0, 1, 1, 1])
    # of 5 neighbours, which are all others, 2 are of the own class
    assert visualize.purity(E, y) == pytest.approx(.4)


def test_efficiency(script, monkeypatch):
    monkeypatch.setattr(efficiency, "point", efficiency.measure)   # no processes: they cost seconds each
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    saved = script("efficiency", "--epochs", "1")
    assert len(saved["runs"]) == 7 and set(saved["table"]) == {"T", "N"}
    for sweep, parts in saved["table"].items():
        for row in parts.values():
            assert min(row["epoch_seconds"]) > 0 and len(row[sweep]) == 2
        assert parts["without IVM"]["parameters"][0] < parts["EMTC"]["parameters"][0]
    assert len(set(saved["table"]["N"]["EMTC"]["parameters"])) == 1


def test_efficiency_by_hand():
    assert efficiency.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert efficiency.slope([1, 2], [0, 1]) is None and efficiency.slope([1], [1]) is None
    assert efficiency.made(5, 7, 0).shape == (5, 7, efficiency.D)
    with pytest.raises(common.UserError, match="N 2, T 16 failed"):   # a process of its own; 4 clusters, 2 samples
        efficiency.point(2, 16, 1, 0, ())


# ---------------------------------------------------------------- recorded runs

def options(tmp_path, epochs=3):
    return Namespace(out=tmp_path, epochs=epochs, data_dir=list(common.DATA_DIRS))


def test_a_run_is_trained_once(tmp_path, monkeypatch):
    args, data = options(tmp_path), toy()
    first = recorded.run(args, data, 0)
    others = [recorded.run(args, data, 1), recorded.run(args, data, 0, epochs=2), recorded.run(args, data, 0, tau=.5),
              recorded.run(args, toy(seed=1), 0)]
    assert len(list((tmp_path / "cache").glob("*.json"))) == 5
    assert (tmp_path / "cache" / ".gitignore").read_text() == "*\n"
    monkeypatch.setattr(recorded, "_train", None)
    assert recorded.run(args, data, 0) == recorded.run(args, data, 0, tau=recorded.defaults()["tau"]) == first
    assert others[1]["epochs"] == 2 and others[0]["labels"] is not None
    with pytest.raises(TypeError):                                 # a new setting would have to be trained
        recorded.run(args, data, 0, tau=.7)


def test_a_record_says_what_the_model_did(tmp_path):
    data, seen = toy(), []
    model = EMTC(2, epochs=3, seed=0).fit(data.X, on_epoch=lambda m, r: seen.append((m.labels_, dict(r))))
    record = recorded.run(options(tmp_path), data, 0)
    assert record["labels"] == model.labels_.tolist() and record["ACC"] == pytest.approx(accuracy(data.y, model.labels_))
    assert record["kept"] == pytest.approx(model.mask_.mean(), abs=1e-5)
    assert record["curves"]["ACC"] == pytest.approx([accuracy(data.y, labels) for labels, _ in seen], abs=1e-5)
    assert record["curves"]["step_ari"][1:] == pytest.approx(
        [ari(a, b) for (a, _), (b, _) in zip(seen, seen[1:])], abs=1e-5)
    for name in ("total", "contra", "intra", "inter", "kept", "label_change"):
        assert record["curves"][name] == pytest.approx([r[name] for _, r in seen], rel=1e-4, abs=1e-6)
    dropped = recorded.run(options(tmp_path), data, 0, drop=("intra",))["curves"]
    assert dropped["intra"] == [0, 0, 0] and dropped["total"] != record["curves"]["total"]
    other = Namespace(**{**vars(data), "y": 1 - data.y[::-1]})      # labels have no way into training
    assert recorded.run(options(tmp_path), other, 0)["labels"] == record["labels"]
    untrained = recorded.run(options(tmp_path), data, 0, epochs=0)
    assert untrained["epochs"] == 0 and untrained["label_change"] is None and untrained["curves"] == {}


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    args, data = options(tmp_path / "a", 5), toy()
    whole = recorded.run(options(tmp_path / "b", 5), data, 0)
    monkeypatch.setattr(recorded, "CHECKPOINT", 0)
    scored, count = recorded.scores, []

    def stop(*labels):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return scored(*labels)

    monkeypatch.setattr(recorded, "scores", stop)
    with pytest.raises(KeyboardInterrupt):
        recorded.run(args, data, 0)
    assert [p.suffix for p in (tmp_path / "a" / "cache").iterdir() if p.name != ".gitignore"] == [".pt"]
    count.clear()
    monkeypatch.setattr(recorded, "scores", lambda *labels: count.append(1) or scored(*labels))
    resumed = recorded.run(args, data, 0)
    assert recorded.without(resumed, "train_seconds") == recorded.without(whole, "train_seconds")
    assert len(count) == 3                                          # epochs 4 and 5, and the end
    assert not list((tmp_path / "a" / "cache").glob("*.p*t"))


def test_no_labels_no_score(tmp_path):
    data = Namespace(**{**vars(toy()), "y": None})
    for call in (lambda: recorded.run(options(tmp_path), data, 0),
                 lambda: visualize.run(options(tmp_path), data, "before", 0)):
        with pytest.raises(common.UserError, match="Toy has no labels"):
            call()


def test_agreement_by_hand():
    assert recorded.agreement([[0, 0, 1, 1]]) is None
    assert recorded.agreement([[0, 0, 1, 1], [5, 5, 2, 2], [0, 1, 0, 1]]) == pytest.approx((1 - .5 - .5) / 3)


# ---------------------------------------------------------------- tables of studies

def test_average_and_paired_by_hand():
    table = {"A": {"x": {"ACC": {"mean": .2}}, "y": {"ACC": {"mean": .5}}}, "B": {"x": {"ACC": {"mean": .6}}}}
    assert studies.average(table)["cells"] == {"x": {"ACC": {"mean": pytest.approx(.4), "n": 2}}}
    runs = [{"data": d, "seed": s, "variant": v, "ACC": a} for d, s, v, a in (
        ("A", 0, "x", .5), ("A", 1, "x", .5), ("B", 0, "x", .5), ("A", 0, "y", .7), ("A", 1, "y", .5), ("B", 0, "y", .4),
        ("B", 1, "y", .9))]
    d = studies.paired(runs, "x")
    assert list(d) == ["y"] and (d["y"]["worse"], d["y"]["equal"], d["y"]["better"]) == (1, 1, 1)
    assert d["y"]["mean_difference"] == pytest.approx((.2 + 0 - .1) / 3)


def test_show_turns_a_wide_table(capsys):
    wide = {"A": {str(v): {"ACC": {"mean": v / 10, "std": 0}} for v in range(8)}}
    studies.show(wide, ["ACC"])
    assert capsys.readouterr().out.splitlines()[1].split() == ["|", "ACC", "|", "A", "|"]


# ---------------------------------------------------------------- baselines

def test_z_scores_by_hand():
    X = np.array([[[1, 5], [3, 5]], [[5, 5], [np.nan, 5]]], dtype=np.float32)
    x, seen = baselines.z_scored(X)
    assert x[0, 0].tolist() == pytest.approx([-2 / np.sqrt(8 / 3), 0]) and x[1, 0, 1] == 0
    assert (x[:, 1] == 0).all() and seen.tolist() == [[[True, True], [True, True]], [[True, False], [True, True]]]


def test_random_kernels_by_loop():
    data = toy(N=3, T=13)
    data.X[1, 9:] = np.nan
    features = baselines.random_kernels(data.X, 4, torch.Generator().manual_seed(3))
    x, _ = baselines.z_scored(data.X)
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.rand((), generator=generator).item()  # noqa: E731
    for k in range(4):
        taps = (7, 9, 11)[int(3 * draw())]
        dilation = int(2 ** (draw() * max(0, np.log2(12 / (taps - 1)))))
        weight = torch.randn(1, 2, taps, generator=generator)[0].numpy()
        weight, bias = weight - weight.mean(1, keepdims=True), 2 * draw() - 1
        for n, length in enumerate((13, 9, 13)):
            y = [bias + sum(weight[d, j] * x[n, d, t + (j - taps // 2) * dilation].item() for d in range(2)
                            for j in range(taps) if 0 <= t + (j - taps // 2) * dilation < 13) for t in range(length)]
            assert features[n, 2 * k].item() == pytest.approx(max(y), abs=1e-4)
            assert features[n, 2 * k + 1].item() == pytest.approx(np.mean(np.array(y) > 0), abs=1e-6)


def test_baselines_find_planted_clusters_and_repeat():
    data = toy(N=30, T=40)
    for unit in (False, True):
        labels = [baselines.kernel_kmeans(data.X, 2, seed, unit, n_kernels=100) for seed in (0, 0, 1)]
        assert accuracy(data.y, labels[0]) == 1 and (labels[0] == labels[1]).all()
    level = toy(N=20)
    level.X += 5 * level.y[:, None, None].astype(np.float32)
    level.X[3, 10:] = np.nan
    assert accuracy(level.y, baselines.raw_kmeans(level.X, 2, 0)) == 1


def test_principal_components():
    X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1., 2, 3, 0, 1]) + 4
    E = baselines.principal(X, 2)
    Z = ((X - X.mean(0)) / X.std(0).clamp_min(1e-9)).numpy()
    values, vectors = np.linalg.eigh(Z.T @ Z)
    for c in range(2):
        wanted = Z @ vectors[:, -1 - c]
        assert min(np.abs(E[:, c].numpy() - s * wanted).max() for s in (1, -1)) < 1e-4
