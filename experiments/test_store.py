"""Tests of what the experiments share: store, runs of EMTC, tables, the check of run_all.py."""

import json
import math
import re
import shutil
import sys
from argparse import Namespace
from collections import namedtuple

import numpy as np
import pytest
import readings
import run_all
import store
import tables
import torch

from emtc import EMTC
from metrics import accuracy

Data = namedtuple("Data", "X y classes name")


def toy(name="Toy", seed=0, N=12, T=20, D=2):
    """Two classes that differ in frequency."""
    rng, t, y = np.random.default_rng(seed), np.arange(T)[None, :, None], np.arange(N) % 2
    X = np.sin((1 + 2 * y)[:, None, None] * (t / 3 + rng.random((N, 1, D))))
    X = X + rng.normal(size=(N, T, D)) / 5
    return Data(X.astype(np.float32), y, ["slow", "fast"], name)


def options(folder, **other):
    """What store.arguments returns, for made data sets A and B."""
    base = {"name": "toy", "out": folder, "figures": folder, "fresh": False, "quick": False}
    work = {"data": ["A", "B"], "seeds": [0, 1], "epochs": 2, "jobs": 1}
    return Namespace(**{**base, **work, **other})


def fill(args, calls, epochs=5):
    """A filled store; `calls` takes the keys of what was run and not stored."""
    box = store.Store(args, epochs=epochs)

    def run(data, variant, seed):
        calls.append((data.name, variant, seed))
        return {"ACC": 0.5 + 0.1 * seed, "curve": np.arange(3)}

    store.sweep(box, args, ["x", "y"], run, load=lambda name, *_: toy(name))
    return box


# ---------------------------------------------------------------- the store


def test_store_resumes_and_keeps_every_key_apart(tmp_path):
    args, calls = options(tmp_path), []
    fill(options(tmp_path, data=["A"], seeds=[1]), calls)
    assert calls == [("A", "x", 1), ("A", "y", 1)]
    box = fill(args, calls)
    assert len(calls) == len(set(calls)) == 8 == len(box.runs)  # the two stored are not run again
    box.finish(table=tables.summary(box.runs))
    saved = json.loads((tmp_path / "toy.json").read_text())
    assert {(r["data"], r["variant"], r["seed"]) for r in saved["runs"]} == set(calls)
    versions = {"torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    assert saved["made_with"] == {"epochs": 5, **versions}
    keys = [(r["data"], r["variant"], r["seed"]) for r in saved["runs"]]
    assert keys == sorted(keys)  # whatever the order in which they were made
    assert saved["table"]["B"]["y"]["ACC"] == {"mean": 0.55, "std": 0.05, "n": 2}
    assert saved["runs"][0]["curve"] == [0, 1, 2] and not list(tmp_path.glob("*.part"))


def test_two_processes_fill_it_alike(tmp_path):
    found = []
    for jobs in (1, 2):
        args = options(tmp_path / str(jobs), jobs=jobs)
        box = store.Store(args)
        store.sweep(box, args, "xy", lambda d, v, s: {"ACC": s / 7}, load=lambda n, *_: toy(n))
        found.append(sorted((r["data"], r["variant"], r["seed"], r["ACC"]) for r in box.runs))
    assert found[0] == found[1] and len(found[1]) == 8


def test_store_saves_each_record_before_the_next_starts(tmp_path):
    args = options(tmp_path)

    def run(data, variant, seed):
        if (data.name, seed) == ("B", 1):
            raise KeyboardInterrupt
        return {"ACC": 1.0}

    with pytest.raises(KeyboardInterrupt):
        store.sweep(store.Store(args), args, ["x"], run, load=lambda name, *_: toy(name))
    assert len(json.loads((tmp_path / "toy.json").read_text())["runs"]) == 3


@pytest.mark.parametrize("content", ["", '{"made_with": {"epo', "[1]"])
def test_a_broken_file_is_one_line_and_stays(tmp_path, content):
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(store.UserError, match="toy.json is not readable"):
        fill(options(tmp_path), [])
    assert (tmp_path / "toy.json").read_text() == content


def test_store_refuses_other_settings_and_versions(tmp_path, monkeypatch):
    fill(options(tmp_path), [])
    before = (tmp_path / "toy.json").read_bytes()
    with pytest.raises(store.UserError, match=r"epochs 5 \(now 7\).*--fresh"):
        fill(options(tmp_path), [], epochs=7)
    monkeypatch.setattr(store.torch, "__version__", "1.8.0")
    with pytest.raises(store.UserError, match="torch"):
        fill(options(tmp_path), [])
    assert (tmp_path / "toy.json").read_bytes() == before
    monkeypatch.undo()
    calls = []
    fill(options(tmp_path, fresh=True), calls, epochs=7)
    assert len(calls) == 8 and (tmp_path / "toy.json.old").read_bytes() == before


def test_records_of_other_code_or_data_are_made_anew(tmp_path):
    fill(options(tmp_path), [])
    path, calls = tmp_path / "toy.json", []
    content = json.loads(path.read_text())
    a, b = content["runs"][0], content["runs"][3]
    a["code"] = b["data_hash"] = "0" * 16
    path.write_text(json.dumps(content))
    assert len(fill(options(tmp_path), calls).runs) == 8
    assert calls == [(r["data"], r["variant"], r["seed"]) for r in (a, b)]


def test_the_code_hash_sees_what_code_does_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text('def f(x):\n    "Doc."\n    return x + 1  # why\n')
    (tmp_path / "b.py").write_text("def f( x ):\n\n  return (x + 1)\n")
    (tmp_path / "c.py").write_text("def f(x):\n    return x + 2\n")
    assert store.code_hash("a") == store.code_hash("b") != store.code_hash("c")


def test_json_is_standard_and_rounded(tmp_path):
    content = {"nan": float("nan"), "t": torch.tensor([1 / 3, math.inf]), "i": np.int64(3)}
    store.write_json(tmp_path / "a" / "b.json", {**content, "runs": [{"f": np.float32(0.1)}, {}]})
    saved = json.loads((tmp_path / "a" / "b.json").read_text())
    assert saved == {"nan": None, "t": [0.333333, None], "i": 3, "runs": [{"f": 0.1}, {}]}


def test_arguments(tmp_path, monkeypatch, capsys):
    for name, file, size in (("Two", "Two", 20), ("One", "One", 10), ("Not", "Other", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{file}_TEST.ts").write_text("x" * size)
    monkeypatch.setattr(store, "DATA_DIRS", (tmp_path,))
    full = store.arguments("toy", "What.", ["--seeds", "3", "3", "1"])
    assert full.data == ["One", "Two"] and full.seeds == [3, 1]
    assert full.epochs == store.defaults()["epochs"] and full.out == store.ROOT / "results"
    assert store.arguments("toy", "What.", [], data=["Two:train", "Three"]).data == ["Two:train"]
    quick = store.arguments("toy", "What.", ["--quick", "--epochs", "2"])
    assert (quick.data, quick.seeds, quick.epochs) == (["BasicMotions"], [0], 2)
    assert quick.out == store.ROOT / "results" / "quick"
    for wrong in (["--epochs", "-1"], ["--jobs", "0"]):
        with pytest.raises(SystemExit, match="2"):
            store.arguments("toy", "What.", wrong)
    monkeypatch.setattr(store, "DATA_DIRS", (tmp_path / "Not",))
    with pytest.raises(SystemExit, match="2"):
        store.arguments("toy", "What.", [])
    assert "Traceback" not in capsys.readouterr().err


def test_load_takes_a_split_by_name():
    test, train = (store.load(name, None) for name in ("BasicMotions", "BasicMotions:train"))
    assert (test.name, train.name) == ("BasicMotions", "BasicMotions train")
    assert train.X.shape == test.X.shape == (40, 100, 6)
    assert store.content_hash(train) != store.content_hash(test)


def test_a_users_mistake_is_one_line_and_status_2(tmp_path, capsys):
    assert store.run_main(lambda: readings.main(["--out", str(tmp_path)])) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "run experiments/table2.py" in err


# ---------------------------------------------------------------- runs of EMTC


def test_a_run_is_trained_once_for_all_studies(tmp_path, monkeypatch):
    data, count, fitted = toy(), [], store.fitted
    monkeypatch.setattr(store, "fitted", lambda *a, **k: count.append(1) or fitted(*a, **k))
    settings = {"one": {}, "two": {"tau": store.defaults()["tau"]}, "three": {"tau": 2}}
    for name, other in settings.items():
        args = options(tmp_path, name=name)
        run = lambda d, v, s, args=args, other=other: store.run(args, d, s, n_starts=1, **other)
        store.sweep(store.Store(args), args, "x", run, load=lambda *_: data)
    assert len(count) == 4  # two seeds of the default, two of tau 2
    one, two = (json.loads((tmp_path / f"{n}.json").read_text())["runs"] for n in ("one", "two"))
    assert [r["labels"] for r in one] == [r["labels"] for r in two]


def test_a_record_says_what_the_model_did():
    data, seen = toy(), []
    model = EMTC(2, epochs=3, seed=0, n_starts=1)
    model.fit(data.X, on_epoch=lambda m, r: seen.append((m.labels_.copy(), dict(r))))
    record = store.plain(store.fitted(data, 0, epochs=3, n_starts=1)[1])
    curves = record["curves"]
    assert record["labels"] == model.labels_.tolist() and record["epochs"] == len(seen)
    assert record["ACC"] == pytest.approx(accuracy(data.y, model.labels_))
    assert record["kept"] == pytest.approx(model.mask_.mean(), abs=1e-5)
    for name in ("total", "contra", "intra", "inter", "kept", "label_change"):
        assert curves[name] == pytest.approx([r[name] for _, r in seen], rel=1e-3, abs=1e-6)
    assert curves["ACC"] == pytest.approx([accuracy(data.y, c) for c, _ in seen], abs=1e-3)
    assert record["oracle"]["ACC"] == pytest.approx(max(record["ACC"], *curves["ACC"]), abs=1e-3)
    other = store.fitted(data._replace(y=1 - data.y[::-1]), 0, epochs=3, n_starts=1)[1]
    assert other["labels"].tolist() == record["labels"]  # labels have no way into training
    start = store.fitted(data, 0, epochs=0)[1]
    assert (start["epochs"], start["label_change"], start["curves"]) == (0, None, {})


def test_no_labels_and_bad_settings_are_one_line():
    with pytest.raises(store.UserError, match="Toy has no labels"):
        store.fitted(toy()._replace(y=None), 0)
    with pytest.raises(store.UserError, match="Toy, seed 0: .*tau"):
        store.fitted(toy(), 0, tau=-1.0)


# ---------------------------------------------------------------- tables


def test_summary_average_and_paired_by_hand():
    x = [("A", 0, "x", 0.5), ("A", 1, "x", 0.5), ("B", 0, "x", 0.5)]
    y = [("A", 0, "y", 0.7), ("A", 1, "y", 0.5), ("B", 0, "y", 0.4), ("B", 1, "y", 0.9)]
    names = ("data", "seed", "variant", "ACC")
    runs = [{**dict(zip(names, run)), "NMI": None} for run in x + y]
    table = tables.summary(runs)
    assert table["A"]["y"]["ACC"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.1), "n": 2}
    assert "NMI" not in table["A"]["x"]
    assert tables.average(table)["y"]["ACC"] == {"mean": pytest.approx(0.625), "n": 2}
    del table["B"]["x"]
    assert list(tables.average(table)) == ["y"]
    (d,) = tables.paired(runs, "x").values()  # differences .2, 0 on A and -.1 on B
    assert (d["n"], d["worse"], d["better"]) == (3, 1, 1) and d["mean"] == pytest.approx(0)
    assert d["by_data"] == {"A": pytest.approx(0.1), "B": pytest.approx(-0.1)}
    assert d["se"] == pytest.approx(np.std([0.2, 0, -0.1], ddof=1) / 3**0.5)
    assert d["se_sets"] == pytest.approx(np.std([0.1, -0.1], ddof=1) / 2**0.5)
    assert tables.error([1.0]) is None


def test_cells_and_tables_narrow_and_wide(capsys):
    assert tables.cell({"mean": 0.95, "std": 0.0126}) == ".950 ± .013" and tables.cell(None) == "-"
    assert tables.cell({"mean": 10.5, "std": 20.01}) == "10.500 ± 20.010"
    lines = ["| a    | long |", "|------|------|", "| xxxx | 1    |"]
    assert tables.print_table(["a", "long"], [["xxxx", 1]], "T").splitlines() == lines
    assert capsys.readouterr().out.splitlines() == ["", "T", "", *lines]
    tables.show({"A": {str(v): {"ACC": {"mean": v / 10, "std": 0}} for v in range(8)}}, ["ACC"])
    assert capsys.readouterr().out.splitlines()[1].split() == ["|", "ACC", "|", "A", "|"]


def test_without_matplotlib_it_says_how_to_get_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    tables.picture(options(tmp_path), lambda axes: None)
    assert "pip install -r experiments/requirements.txt" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- run_all


def test_run_all_passes_options_and_hides_nothing(tmp_path, monkeypatch, capsys):
    seen = "import sys; open('seen.txt', 'a').write(' '.join(sys.argv[1:]) + ';')"
    (tmp_path / "good.py").write_text(seen)
    (tmp_path / "bad.py").write_text("import sys; sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    results = run_all.run_all(tmp_path, ["--quick"], ("bad", "gone", "good one"))
    assert [status for status, _ in results.values()] == [3, 2, 0]
    assert (tmp_path / "seen.txt").read_text() == "one --quick;"
    for status, code in ((0, 0), (3, 1)):
        monkeypatch.setattr(run_all, "run_all", lambda *_, s=status: {"a": (0, 0.0), "b": (s, 0.0)})
        assert run_all.main([]) == code
    assert "FAILED (exit 3)" in capsys.readouterr().out


def test_numbers_in_texts_come_from_results(tmp_path):
    content = {"a": {"mean": 0.8125, "gain": -0.004}, "n": [7], "text": ["| x |\n|---|\n| 1 |"]}
    (tmp_path / "s.json").write_text(json.dumps(content))
    text = ".7<!--=s a/mean--> 0.701<!--=s a/mean--> +.01<!--=s a/gain--> 3 %<!--=s a/mean--> "
    text += "5<!--=s n/0-->\n<!--table s 0-->\nold\n<!--/table-->\n"
    done = run_all.filled(text, tmp_path)
    plain = ".8 0.812 -.00 81 % 7\n\n| x |\n|---|\n| 1 |\n\n"
    assert re.sub("<!--.*?-->", "", done) == plain and run_all.filled(done, tmp_path) == done
    with pytest.raises(KeyError):
        run_all.filled("1<!--=s a/c-->", tmp_path)


def test_the_check_names_what_is_outdated(tmp_path):
    args = options(tmp_path / "results", figures=tmp_path / "figures", data=["A"])
    pytest.importorskip("matplotlib")
    box = fill(args, [])
    tables.picture(args, lambda axes: None)
    (tmp_path / "README.md").write_text("two 2<!--=toy runs/1/seed-->")
    assert run_all.outdated(tmp_path) == ["README.md: numbers differ from results/; --readme"]
    (tmp_path / "README.md").write_text("one 1<!--=toy runs/1/seed-->")
    assert run_all.outdated(tmp_path) == []
    box.runs[0]["code"] = "0" * 16
    box.finish()
    old = "toy.json: 1 of 4 records were made by other code"
    assert run_all.outdated(tmp_path) == [old, "toy.png: not made from this toy.json"]
    for folder in ("more", "quick"):  # of which quick is no result
        (tmp_path / "results" / folder).mkdir()
        shutil.copy(tmp_path / "results/toy.json", tmp_path / "results" / folder)
    assert run_all.outdated(tmp_path)[:2] == [f"more/{old}", old]


def test_results_figures_and_texts_belong_to_this_code():
    assert run_all.outdated(store.ROOT) == []
