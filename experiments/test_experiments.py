"""Tests of the experiments: hand-computed values, loop twins, scipy where it is there."""

import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import archive_check
import common
import run_all
import significance

HERE = Path(__file__).resolve().parent


def dataset(name="Toy", seed=0, N=6, T=5, D=2, y=(0, 0, 0, 1, 1, 1)):
    X = np.random.default_rng(seed).normal(size=(N, T, D)).astype(np.float32)
    return Namespace(X=X, y=None if y is None else np.array(y), classes=["a", "b"], name=name)


def options(tmp_path, **other):
    return Namespace(**{"name": "toy", "out": tmp_path, "figures": tmp_path, "fresh": False, "data": ["A", "B"],
                        "seeds": [0, 1], **other})


def fill(args, calls, epochs=5):
    store = common.Store(args, epochs=epochs)

    def run(data, variant, seed):
        calls.append((data.name, variant, seed))
        return {"ACC": 0.5 + 0.1 * seed, "curve": np.arange(3)}

    common.sweep(store, args, ["x", "y"], run, load=lambda name, args, split: dataset(name))
    return store


# ---------------------------------------------------------------- common

def test_store_resumes_and_keeps_every_key_apart(tmp_path):
    args, calls = options(tmp_path), []
    fill(options(tmp_path, data=["A"], seeds=[1]), calls)
    assert calls == [("A", "x", 1), ("A", "y", 1)]
    store = fill(args, calls)
    assert len(calls) == len(set(calls)) == 8 == len(store.runs)   # the two stored ones are not run again
    store.finish(table=common.summary(store.runs))
    saved = json.loads((tmp_path / "toy.json").read_text())
    assert {(r["data"], r["variant"], r["seed"]) for r in saved["runs"]} == set(calls)
    assert saved["made_with"] == {"epochs": 5, "torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    assert saved["table"]["B"]["y"]["ACC"] == {"mean": 0.55, "std": 0.05, "n": 2}
    assert saved["runs"][0]["curve"] == [0, 1, 2]
    assert not list(tmp_path.glob("*.part"))


def test_store_saves_each_record_before_the_next_starts(tmp_path):
    args = options(tmp_path)
    store = common.Store(args, epochs=5)

    def run(data, variant, seed):
        if (data.name, seed) == ("B", 1):
            raise KeyboardInterrupt
        return {"ACC": 1.0}

    with pytest.raises(KeyboardInterrupt):
        common.sweep(store, args, ["x"], run, load=lambda name, args, split: dataset(name))
    assert len(json.loads((tmp_path / "toy.json").read_text())["runs"]) == 3


@pytest.mark.parametrize("content", ["", '{"made_with": {"epo', "[]", '{"made_with": {}, "runs": [{"data": 1}]}'])
def test_store_survives_a_broken_file_and_keeps_it(tmp_path, content, capsys):
    (tmp_path / "toy.json").write_text(content)
    calls = []
    assert len(fill(options(tmp_path), calls).runs) == len(calls) == 8
    assert (tmp_path / "toy.json.broken").read_text() == content
    assert "not readable" in capsys.readouterr().err


def test_store_refuses_other_settings_versions_and_data(tmp_path, monkeypatch):
    args = options(tmp_path)
    fill(args, [])
    before = (tmp_path / "toy.json").read_bytes()
    with pytest.raises(common.UserError, match=r"epochs 5 \(now 7\).*--fresh"):
        fill(args, [], epochs=7)
    with pytest.raises(common.UserError, match="content"):
        common.Store(args, epochs=5).get("A", "x", 0, "another")
    monkeypatch.setattr(common.torch, "__version__", "1.8.0")
    with pytest.raises(common.UserError, match="torch"):
        fill(args, [])
    assert (tmp_path / "toy.json").read_bytes() == before
    monkeypatch.undo()
    calls = []
    fill(options(tmp_path, fresh=True), calls, epochs=7)
    assert len(calls) == 8 and (tmp_path / "toy.json.old").read_bytes() == before


def test_store_names_records_of_other_code(tmp_path, capsys):
    fill(options(tmp_path), [])
    path = tmp_path / "toy.json"
    content = json.loads(path.read_text())
    content["runs"][0]["code"] = "0" * 16
    path.write_text(json.dumps(content))
    common.Store(options(tmp_path), epochs=5)
    assert "1 of 8 records" in capsys.readouterr().err


def test_json_is_standard_and_rounded(tmp_path):
    common.write_json(tmp_path / "a" / "b.json", {"nan": float("nan"), "t": torch.tensor([1 / 3, math.inf]),
                                                 "i": np.int64(3), "runs": [{"f": np.float32(0.1)}, {}]})
    text = (tmp_path / "a" / "b.json").read_text()
    assert json.loads(text) == {"nan": None, "t": [0.333333, None], "i": 3, "runs": [{"f": 0.1}, {}]}
    common.write_json(tmp_path / "c.json", {"runs": []})
    assert json.loads((tmp_path / "c.json").read_text()) == {"runs": []}


def test_content_hash_sees_values_shape_and_labels():
    base = dataset()
    moved, relabelled, shaped = dataset(), dataset(y=(0, 0, 0, 1, 1, 0)), dataset()
    moved.X[0, 0, 0] += 1
    shaped.X = shaped.X.reshape(6, 2, 5)
    stamps = [common.content_hash(d) for d in (base, moved, relabelled, shaped, dataset(y=None))]
    assert len(set(stamps)) == 5 and stamps[0] == common.content_hash(dataset())


def test_summary_uses_each_run_once():
    runs = [{"data": "A", "variant": "x", "seed": s, "ACC": a, "NMI": None} for s, a in enumerate((0.2, 0.4, 0.9))]
    table = common.summary(runs, ("ACC", "NMI"))
    assert table["A"]["x"]["ACC"]["mean"] == pytest.approx(0.5)
    assert table["A"]["x"]["ACC"]["std"] == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 3))
    assert "NMI" not in table["A"]["x"]


def test_cell_and_markdown():
    assert common.cell({"mean": 0.95, "std": 0.0126}) == ".950 ± .013"
    assert common.cell({"mean": 10.5, "std": 20.01}) == "10.500 ± 20.010" and common.cell(None) == "-"
    assert common.markdown(["a", "long"], [["xxxx", 1]]).splitlines() == [
        "| a    | long |", "|------|------|", "| xxxx | 1    |"]


def test_arguments(tmp_path, capsys):
    for name in ("One", "Two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_TEST.ts").touch()
    (tmp_path / "Not").mkdir()
    (tmp_path / "Not" / "Other_TEST.ts").touch()
    full = common.arguments("toy", "What.", ["--data-dir", str(tmp_path), "--seeds", "3", "3", "1"])
    assert full.data == ["One", "Two"] and full.seeds == [3, 1] and full.epochs == 200
    assert full.out == common.ROOT / "results"
    quick = common.arguments("toy", "What.", ["--quick", "--epochs", "2"])
    assert quick.data == ["BasicMotions"] and quick.seeds == [0] and quick.epochs == 2
    assert quick.out == common.ROOT / "results" / "quick"
    for wrong in (["--epochs", "-1"], ["--data-dir", str(tmp_path / "Not")], ["--seeds", "x"]):
        with pytest.raises(SystemExit) as stop:
            common.arguments("toy", "What.", wrong)
        assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_users_mistake_is_one_line_and_status_2(tmp_path, capsys):
    assert common.run_main(lambda: archive_check.main(["--data", "BasicMotion", "--out", str(tmp_path)])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "BasicMotion" in err
    assert common.run_main(lambda: 0) == 0


def test_luck_floor_by_enumeration():
    # two samples of two classes: every labeling but the two equal ones is right, the equal ones are half right
    assert common.luck_floor([0, 1], draws=1, tries=1000)[0] == pytest.approx(0.75, abs=0.03)
    assert common.luck_floor([0, 1], draws=30, tries=3) == (1.0, 0.0)
    few, many = (common.luck_floor([0, 1, 2] * 5, draws=d, tries=3)[0] for d in (1, 40))
    assert 1 / 3 < few < many < 1
    assert common.luck_floor([0, 1, 2] * 5, draws=9, seed=1) == common.luck_floor([0, 1, 2] * 5, draws=9, seed=1)


def test_without_matplotlib_it_says_how_to_get_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert common.picture(options(tmp_path), lambda figure, axes: None) is None
    assert "pip install -r experiments/requirements.txt" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- significance

def test_average_ranks_by_hand():
    ranks = significance.average_ranks([[.9, .5, .5, .1], [.2, .3, .2, .2], [1, 2, 3, 4]])
    assert ranks.tolist() == [[1, 2.5, 2.5, 4], [3, 1, 3, 3], [4, 3, 2, 1]]


def test_friedman_by_hand():
    # average ranks 1.25, 2.0, 2.75: chi2 = 12 * 4 / (3 * 4) * (1.25^2 + 2^2 + 2.75^2 - 12) = 4.5
    ranks = np.array([[1, 2, 3], [1, 2, 3], [1, 3, 2], [2, 1, 3]], dtype=float)
    result = significance.friedman(ranks)
    assert result["chi2"] == pytest.approx(4.5)
    assert result["p_chi2"] == pytest.approx(math.exp(-2.25))      # chi2 with two degrees of freedom
    assert result["F"] == pytest.approx(3 * 4.5 / (4 * 2 - 4.5))
    # F with 2 and m degrees of freedom has the tail (1 + 2 F / m)^(-m / 2)
    assert result["p_F"] == pytest.approx((1 + 2 * result["F"] / 6) ** -3)
    assert significance.friedman(np.full((5, 3), 2.0)) == {"chi2": 0.0, "p_chi2": 1.0, "F": 0.0, "p_F": 1.0}
    perfect = significance.friedman(np.tile([1.0, 2.0, 3.0], (6, 1)))
    assert perfect["chi2"] == pytest.approx(12) and perfect["p_F"] == 0


def test_friedman_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, k in ((15, 9), (5, 3), (8, 6), (40, 4)):
        values = rng.integers(0, 6, (n, k)) / 5                    # many ties
        ranks = significance.average_ranks(values)
        np.testing.assert_allclose(ranks, [stats.rankdata(-row) for row in values])
        mine, theirs = significance.friedman(ranks), stats.friedmanchisquare(*values.T)
        assert mine["chi2"] == pytest.approx(theirs.statistic)
        assert mine["p_chi2"] == pytest.approx(theirs.pvalue)
        assert mine["p_F"] == pytest.approx(stats.f.sf(mine["F"], k - 1, (k - 1) * (n - 1)), rel=1e-9)
    for F in (1e-6, .3, 1, 4, 50, 1e4):
        for d1, d2 in ((1, 1), (8, 112), (5, 2), (2, 300)):
            assert significance.f_tail(F, d1, d2) == pytest.approx(stats.f.sf(F, d1, d2), rel=1e-7, abs=1e-300)


def test_critical_difference():
    # k = 9, n = 15: sqrt(9 * 10 / (6 * 15)) = 1, so the difference is the critical value itself
    assert significance.critical_difference(9, 15) == pytest.approx(2.724)
    assert significance.critical_difference(9, 15, table=False) == pytest.approx(2.7344, abs=5e-5)
    assert significance.critical_difference(9, 15, 0.01) == pytest.approx(3.2272, abs=5e-5)
    assert significance.critical_difference(2, 10) == pytest.approx(1.96 / math.sqrt(10))
    assert significance.critical_difference(5, 30) == pytest.approx(2.498 * math.sqrt(30 / 180))
    assert significance.critical_difference(12, 20) == significance.critical_difference(12, 20, table=False)
    off = [k for k in significance.DEMSAR_05 if abs(
        significance.critical_difference(k, k * (k + 1) / 6, table=False) - significance.DEMSAR_05[k]) > 6e-4]
    assert off == [9]                                              # the one misprint of the table


def test_compare_by_hand():
    means = {f"d{i}": {"EMTC": .9, "a": .8 if i else .95, "b": .1} for i in range(20)}
    result = significance.compare(means, "EMTC")
    assert result["average_rank"] == {"EMTC": 1.05, "a": 1.95, "b": 3.0}
    assert result["rank_gap"] == pytest.approx({"a": 0.9, "b": 1.95})
    # 2.241 * sqrt(12 / 120) = .709; z at 1 - .01 / 4 is 2.807, times .316 = .888
    assert result["critical_difference"] == pytest.approx({"95": 0.7087, "99": 0.8877}, abs=1e-4)
    assert result["significant"] == {"95": ["a", "b"], "99": ["a", "b"]}
    assert result["beaten_on"] == {"d0": ["a"]} and result["mean"]["b"] == pytest.approx(.1)
    worse = significance.compare(means, "b")
    assert worse["significant"] == {"95": [], "99": []}            # a better method is not one that it beats


def test_readings_by_hand():
    means = {"p": {"EMTC": .6, "a": .5, "b": .1}, "q": {"EMTC": .6, "a": .4, "b": .75}}
    values = list(significance.readings(means).values())
    # best others .5 and .75; a averages .45, b .425
    assert values == pytest.approx([-2.5, 100 * (.2 - .2) / 2, 100 * (1.2 / 1.25 - 1),
                                    15, 100 * (.2 + .5) / 2, 100 * (.6 / .45 - 1)], abs=1e-9)


def planted():
    cells = {"ACC": {"EMTC": [.6, 0], "a": [.5, 0], "b": [.1, 0]},
             "F1": {"EMTC": [.6, 0], "a": [2 / 3, 0], "b": [.2, 0]}}
    return {"table1": {"datasets": {"p": {"g": 2}}},
            "table2": {"methods": ["EMTC", "a", "b"], "results": {"p": cells}},
            "claims": {"ACC": {"percent": 20.0}, "F1": {"percent": 3.0}, "NMI": {"percent": 1.0}}}


def test_claims_are_borne_out_only_by_the_number():
    claims = {c["metric"]: c for c in significance.check_claims(planted())}
    assert claims["ACC"]["borne_out"] is True and "ratio" in claims["ACC"]["nearest"]
    assert claims["F1"]["borne_out"] is False and claims["NMI"]["borne_out"] is None


def test_collapsed_cells_are_found_and_recounted():
    assert significance.collapsed(planted()) == [["p", "a"]]       # ACC .5 in one cluster: 2 * .5 / 1.5
    assert significance.recount_f1(planted())["p"] == pytest.approx({"EMTC": .6, "a": 1 / 3, "b": .2})


def test_significance_script(tmp_path, capsys):
    own = {d: {"EMTC last epoch": {"ACC": {"mean": a, "std": 0}}, "EMTC oracle epoch": {"ACC": {"mean": 1, "std": 0}},
               "raw k-means": {"ACC": {"mean": .5, "std": 0}}, "half": {"ACC": {"mean": .1, "std": 0}} if d else {}}
           for d, a in enumerate((.4, .6, .7))}
    (tmp_path / "table2.json").write_text(json.dumps({"runs": [], "table": own}))
    argv = ["--quick", "--epochs", "2", "--out", str(tmp_path), "--figures", str(tmp_path)]
    assert significance.main([*argv, "--own", str(tmp_path / "table2.json")]) == 0
    saved = json.loads((tmp_path / "significance.json").read_text())
    for metric, rank in (("ACC", 1.267), ("F1", 1.6)):
        r = saved["published"][metric]
        assert r["average_rank"]["EMTC"] == pytest.approx(rank, abs=5e-4)
        assert sum(r["average_rank"].values()) == pytest.approx(45, abs=1e-3)     # 1 + ... + 9
        assert r["critical_difference"]["95"] == 2.724 and r["table_and_quantile_agree"] is True
        assert r["n_data"] == 15 and 0 < r["p_F"] < r["p_chi2"] < 1e-8
        assert set(r["significant"]["99"]) <= set(r["significant"]["95"]) <= set(r["rank_gap"])
    assert {c["metric"]: c["borne_out"] for c in saved["claims"]} == {"F1": False, "ACC": False, "NMI": None}
    assert list(saved["published"]["ACC"]["beaten_on"]) == ["BasicMotions", "HandMovementDirection", "PEMS-SF",
                                                            "SelfRegulationSCP1"]
    ours = saved["own"].pop("ACC")["average_rank"]
    assert ours == pytest.approx({"EMTC last epoch": 4 / 3, "raw k-means": 5 / 3}, abs=1e-5) and not saved["own"]
    assert "2.724" in capsys.readouterr().out
    assert significance.main([*argv, "--own", str(tmp_path / "none.json")]) == 0
    assert json.loads((tmp_path / "significance.json").read_text())["own"] == {}


def test_published_values():
    published = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    results = published["table2"]["results"]
    assert len(results) == len(published["table1"]["datasets"]) == 15
    # read off the paper's page: the first, a middle and the last row
    assert results["BasicMotions"]["ACC"]["EMTC"] == [.9083, .0656]
    assert results["BasicMotions"]["F1"]["Ti-MAE"] == [.9749, 0]
    assert results["Heartbeat"]["F1"]["FEI"] == [.8330, .0016] and results["PEMS-SF"]["ACC"]["TimesURL"] == [.6012, 0]
    assert results["StandWalkJump"]["F1"]["T-GMRF"] == [.5342, 0]
    assert published["table1"]["datasets"]["EigenWorms"] == {"N": 131, "T": 17984, "D": 6, "g": 5}
    assert all(list(row[m]) == published["table2"]["methods"] for row in results.values() for m in ("ACC", "F1"))


# ---------------------------------------------------------------- archive_check

def lagged(lag, N=20, T=60, D=5, seed=0):
    """Series whose variate j+1 is variate j moved by `lag`, as in FingerMovements."""
    flat = np.random.default_rng(seed).normal(size=(N, T + abs(lag) * D)).astype(np.float32)
    starts = [j * lag if lag >= 0 else (D - 1 - j) * -lag for j in range(D)]
    return np.stack([flat[:, s:s + T] for s in starts], 2)


@pytest.mark.parametrize("lag", [1, 7, 40, -3])
def test_planted_lag_is_found(lag):
    assert archive_check.find_lag(lagged(lag)) == {"lag": lag, "share": 1.0}


def test_lag_counts_by_loop():
    X = np.random.default_rng(0).integers(0, 3, (4, 9, 3)).astype(np.float32)
    X[1, 2, 1] = X[3, 0, 0] = np.nan
    for lag in (-2, 0, 3):
        equal = pairs = 0
        for n in range(4):
            for t in range(9):
                for j in range(2):
                    if 0 <= t + lag < 9 and not np.isnan(X[n, t, j + 1]) and not np.isnan(X[n, t + lag, j]):
                        pairs += 1
                        equal += X[n, t, j + 1] == X[n, t + lag, j]
        assert archive_check.equal_share(X, lag) == (equal / pairs, pairs)


def test_no_lag_in_noise_and_none_from_constant_variates():
    X = dataset(N=20, T=60, D=4).X
    assert archive_check.find_lag(X)["share"] == 0
    X[:, :, 1:3] = 7
    assert archive_check.constant_variates(X).tolist() == [False, True, True, False]
    assert archive_check.find_lag(X)["share"] == 0
    assert archive_check.find_lag(X[:, :, :2]) == {"lag": None, "share": 0.0}
    half = lagged(7)
    half[10:] = dataset(N=10, T=60, D=5).X
    assert archive_check.find_lag(half)["lag"] == 7 and archive_check.find_lag(half)["share"] == pytest.approx(0.5)


def test_distinct_share_by_hand():
    # T = 60, D = 5, lag 7: 60 + 4 * 7 values of 300 are not copies
    assert archive_check.distinct_share(60, 5, 7) == pytest.approx(88 / 300)
    X = lagged(7)
    assert len(np.unique(X[0])) == 88
    assert archive_check.distinct_share(60, 5, 80) == 1.0


def test_duplicates_equal_variates_missing_and_lengths():
    train, test = dataset(seed=1, N=8).X, dataset(seed=2, N=7).X
    assert archive_check.duplicates(train, test) == {"train": 0, "test": 0, "across": 0}
    train[3], train[5], test[2], test[6] = train[0], train[0], test[1], train[7]
    assert archive_check.duplicates(train, test) == {"train": 2, "test": 1, "across": 1}
    test[4, 3:] = np.nan
    test[5, 1, 0] = np.nan
    assert archive_check.lengths(test).tolist() == [5, 5, 5, 5, 3, 5, 5]
    assert archive_check.missing_share(test) == pytest.approx(1 / (2 * 33))       # one value of 33 steps, 2 variates
    assert archive_check.equal_variates(test) == 0
    assert archive_check.equal_variates(np.concatenate([test, test[:, :, :1], np.zeros((7, 5, 2), "f4")], 2)) == 1
    short, long = archive_check.pad(train[:, :3], train)
    assert short.shape == long.shape == (8, 5, 2) and np.isnan(short[:, 3:]).all()


def test_check_on_planted_defects():
    y = np.array([0] * 15 + [1] * 5)
    both = [Namespace(X=lagged(7, seed=s), y=y, classes=["a", "b"], name="Toy") for s in (0, 1)]
    both[1].X[4] = both[0].X[2]
    found = archive_check.check(*both, [0, 1], [0.7, 0.1])
    assert found["lagged_copies"] and found["lag"] == 7 and found["share_train"] == 1
    assert found["distinct_share"] == pytest.approx(88 / 300)
    assert found["duplicates"] == {"train": 0, "test": 0, "across": 1}
    assert found["majority_share"] == 0.75 and found["class_shares"] == [0.75, 0.25]
    assert 0.5 < found["luck_floor"]["mean"] < 1 and found["luck_floor"]["tries"] == 2


def test_archive_check_script(tmp_path, capsys):
    argv = ["--quick", "--epochs", "2", "--out", str(tmp_path), "--figures", str(tmp_path)]
    assert archive_check.main(argv) == 0
    saved = json.loads((tmp_path / "archive_check.json").read_text())
    (run,) = saved["runs"]
    assert run["data"] == "BasicMotions" and run["shape"] == [40, 100, 6] and run["n_train"] == 40
    assert sum(run["class_shares"]) == pytest.approx(1) and run["majority_share"] == max(run["class_shares"])
    assert run["share"] < 0.03 and not run["lagged_copies"] and saved["lagged"] == []
    assert run["majority_share"] < run["luck_floor"]["mean"] < run["paper_ACC"][0]
    assert run["missing_share"] == 0 and run["length"] == [100, 100]
    assert archive_check.main(argv) == 0 and "stored" in capsys.readouterr().out


# ---------------------------------------------------------------- run_all

def test_run_all_passes_options_and_hides_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "good.py").write_text("import sys; open('seen.txt', 'a').write(' '.join(sys.argv[1:]) + ';')")
    (tmp_path / "bad.py").write_text("import sys; sys.exit(2)")
    monkeypatch.chdir(tmp_path)
    results = run_all.run_all(tmp_path, ["--quick", "--seeds", "1"], ("bad", "gone", "good"))
    assert {name: status for name, (status, _) in results.items()} == {"bad": 2, "gone": None, "good": 0}
    assert (tmp_path / "seen.txt").read_text() == "--quick --seeds 1;"
    for statuses, code in (((0, 0), 0), ((0, 1), 1), ((None, 0), 1)):
        monkeypatch.setattr(run_all, "run_all", lambda *_, s=statuses: {n: (c, 0.0) for n, c in zip("ab", s)})
        assert run_all.main([]) == code
    assert "MISSING" in capsys.readouterr().out


def test_a_script_runs_from_anywhere(tmp_path):
    done = subprocess.run([sys.executable, str(HERE / "significance.py"), "--quick", "--out", "r", "--figures", "f"],
                          cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "r" / "significance.json").exists()
