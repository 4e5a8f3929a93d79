"""The command line beyond its essentials, which are in test_emtc.py."""

import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from emtc import EMTC
from support import progress, report, run_folder
from uea_loader import load

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["--seeds", "0", "1", "--epochs", "2", "--quiet"]
QUICK += ["--width", "8", "--starts", "1", "--init", "2"]


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """noise.npz: no clusters, so that seeds, epochs and masks all give other labels."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 10, 2)).astype(np.float32), np.arange(30) % 3
    np.savez(tmp_path / "noise.npz", X=X, y=y)
    np.savez(tmp_path / "bare.npz", X=X)
    monkeypatch.chdir(tmp_path)
    return X, y


def run(*options, data="noise.npz"):
    assert train.main(["--data", data, *QUICK, *options]) == 0


def told(capsys, *options):
    """The one line on stderr of a command that refuses its input."""
    capsys.readouterr()
    assert train.main(list(options)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("train.py: error: ")
    return lines[0]


def rows(path):
    return [line.split(",") for line in Path(path).read_text().splitlines()]


def test_a_csv_of_ones_own(tmp_path, monkeypatch):
    """Long form, out of order, unequal lengths, no labels: ids come back beside the labels."""
    monkeypatch.chdir(tmp_path)
    rng, ids = np.random.default_rng(0), [f"dev{n}" for n in range(8)]
    steps = [(n, i, t) for n, i in enumerate(ids) for t in range(9 + n)]
    lines = [f"{i},{t},{rng.normal()},{t * (n % 2)}" for n, i, t in steps]
    Path("logs.csv").write_text("\n".join(["device,when,a,b", *rng.permutation(lines)]))
    own = ["--id-column", "device", "--time-column", "when"]
    run(*own, "--clusters", "2", "--out", "run", data="logs.csv")
    table = rows("run/labels.csv")
    assert table[0] == ["sample", "id", "class", "seed_0", "seed_1"]
    data = load("logs.csv", id_column="device", time_column="when")
    assert [row[1] for row in table[1:]] == data.ids and sorted(data.ids) == ids
    want = EMTC(2, epochs=2, width=8, n_starts=1, n_init=2, seed=1).fit(data.X).labels_
    assert [row[4] for row in table[1:]] == [str(c) for c in want]
    new = ["--predict", "logs.csv", "--model", "run/model_seed0.pt", "--out", "new.csv"]
    assert train.main([*new, *own]) == 0
    assert [row[:2] for row in rows("new.csv")] == [row[:2] for row in table]
    assert "dev3" in Path("run/report.html").read_text(encoding="utf-8")


def test_several_g_give_a_run_each_and_a_table(noise, capsys):
    run("--clusters", "3", "2", "3", data="bare.npz")
    folder, printed = Path("runs/bare-clusters"), capsys.readouterr().out
    assert {f.name for f in folder.iterdir()} == {".lock", "choice.json", "g2", "g3", "labels.csv"}
    table = rows(folder / "labels.csv")
    assert table[0] == ["sample", "class", *(f"g{g}_seed_{s}" for g in (3, 2) for s in (0, 1))]
    choice = json.loads((folder / "choice.json").read_text())
    for row, g, first in zip(choice["rows"], (3, 2), (2, 4), strict=True):
        results = json.loads((folder / f"g{g}" / "results.json").read_text())
        labels, want = [], []
        for s in (0, 1):
            with np.load(folder / f"g{g}" / f"seed_{s}.npz") as file:
                labels.append(file["labels"])
                want.append(report.silhouette(file["embedding"], file["labels"]))
            assert [r[first + s] for r in table[1:]] == [str(c) for c in labels[s]]
        assert row["agreement"] == results["agreement"] == report.agreement(labels)
        assert row["silhouette"] == pytest.approx(np.mean(want)) and row["clusters"] == g
        assert row["smallest"] == min((np.bincount(c, minlength=g)).min() for c in labels)
    assert "How to read it" in printed and "uggestion" in printed.splitlines()[-2]
    run("--clusters", "3", "2", "--resume", "--out", str(folder), data="bare.npz")  # prints again
    assert capsys.readouterr().out.splitlines()[-8:-1] == printed.splitlines()[-8:-1]


def test_a_new_comparison_moves_the_old_one_aside(noise, capsys):
    """As a whole, before the first fit: one that is stopped can go on by --resume."""
    run("--clusters", "2", "3", "--out", "c", data="bare.npz")
    old = Path("c/choice.json").read_text()
    run("--clusters", "3", "2", "--tau", "1", "--seeds", "0", "--out", "c", data="bare.npz")
    assert Path("c.1/choice.json").read_text() == old and Path("c.1/g2/results.json").exists()
    assert sorted(f.name for f in Path("c").glob("g*")) == ["g2", "g3"]
    assert "No suggestion: no g where seeds agree" in capsys.readouterr().out


def test_a_series_without_any_value_is_refused_before_a_folder_changes(noise, capsys):
    X = noise[0].copy()
    X[5] = np.nan
    np.savez("gap.npz", X=X)
    assert "series 5" in told(capsys, "--data", "gap.npz", "--clusters", "2", "--out", "run")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "more",
    ["--clusters 3", "--seeds 1", "--oracle", "--resume", "--jobs 2", "--tau 1", "--data bare.npz"]
    + ["--method mug", "--as-printed"],
)
def test_predict_refuses_what_it_would_ignore(noise, capsys, more):
    line = told(capsys, "--predict", "bare.npz", "--model", "m.pt", *more.split())
    assert more.split()[0] in line and "does not apply" in line


def test_predict_and_what_is_no_model(noise, capsys):
    X, new = noise[0], noise[0][:7, ::-1].copy()
    np.savez("new.npz", X=new)
    model = EMTC(3, epochs=1, width=8).fit(X)
    model.save("m.pt")
    want = ["sample,cluster", *(f"{n},{c}" for n, c in enumerate(model.predict(new)))]
    command = ["--predict", "new.npz", "--model", "m.pt"]
    assert train.main(command) == 0 and capsys.readouterr().out.split() == want
    assert train.main([*command, "--out", "l.csv"]) == 0
    assert Path("l.csv").read_text().split() == want
    assert "exists" in told(capsys, *command, "--out", "l.csv")  # nothing is overwritten
    torch.save({"x": torch.ones(3)}, "other.pt")
    Path("text.pt").write_text("hello")
    bits = bytearray(Path("m.pt").read_bytes())
    bits[len(bits) // 2] ^= 1
    Path("damaged.pt").write_bytes(bits)
    for name in ("other.pt", "text.pt", "damaged.pt", "none.pt"):
        assert name in told(capsys, "--predict", "new.npz", "--model", name)


@pytest.mark.slow
@pytest.mark.parametrize("stdout", ["closed", "gone", "full"])
def test_nobody_listens(noise, stdout):
    """A reader that has gone away, a full disk behind stdout: the run goes on to its end."""
    command = [sys.executable, str(ROOT / "train.py"), "--data", "noise.npz", "--seeds", "0"]
    command += ["--epochs", "11", "--patience", "11", "--out", "run"]
    shell = {"closed": '"$@" >&-', "gone": '"$@" | head -n 1', "full": '"$@" > /dev/full'}[stdout]
    command = ["bash", "-o", "pipefail", "-c", shell, "-", *command]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"" and Path("run/report.html").exists()
    assert len(Path("run/log.jsonl").read_text().splitlines()) == 11


def test_progress_says_how_long(capsys, monkeypatch):
    clock = iter([100.0, 104.0, 108.0, 141.0, 145.0])  # the third epoch takes 33 s, the others 4
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    settings = {"epochs": 20, "n_starts": 2, "trial": 5}
    shown = progress.Progress(7, settings, 2, (9, 8, 1), quiet=False)
    shown.start()
    record = {"total": 1.0, "contra": 2.5, "kept": 0.9, "label_change": 0.0125}
    with shown:
        for trial, epoch in ((1, 4), (2, 4), (2, 5)):  # the second comes too soon after the first
            shown.show({"trial": trial, "epoch": epoch, **record})
        shown.show({"epoch": 10, **record})
    first, second, last = capsys.readouterr().out.splitlines()
    text = " contra 2.50 kept 0.90 changed 0.013"
    assert first == f"seed 7 trial 1 of 2, 4/5 ≤6min{text}"  # 4 s x (3 x 30 - 4)
    assert second == f"seed 7 trial 2 of 2, 5/5 ≤19min{text}"  # 41 / 3 s x 80
    assert last == f"seed 7 10/20 ≤14min{text}"  # 45 / 4 s x (90 - 20)
    alone = progress.Progress(0, {"epochs": 20, "n_starts": 1}, 0, (9, 8, 1), quiet=True)
    assert (alone.starts, alone.trial) == (0, 0)
    alone.timer.cancel()


def test_a_long_wait_is_announced(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0)
    text = "seed 7: no epoch after 0 s; 9 series of {} steps, 1 variates{}\n"
    for quiet, T, more in ((False, 1001, "; fewer --max-keys take less time"), (False, 1000, ""),
                           (True, 2000, None)):  # fmt: skip
        shown = progress.Progress(7, {"epochs": 20}, 0, (9, T, 1), quiet)
        shown.timer.join()
        assert shown.timer.daemon and shown.starts == 0
        assert capsys.readouterr().out == ("" if quiet else text.format(T, more))


@pytest.mark.parametrize("columns, cells", [(40, 39), (200, 79)])
def test_a_terminal_has_one_line_that_is_renewed(capsys, monkeypatch, columns, cells):
    clock = iter([100.0, 125.0, 135.0, 145.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    size = os.terminal_size((columns, 9))
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: size)
    shown = progress.Progress(3, {"epochs": 5}, 0, (9, 8, 1), quiet=False)
    shown.start()
    record = {"epoch": 1, "total": 1.0, "loss": 7.0, "contra": 1.0, "intra": 2.0, "kept": 0.9}
    record |= {"hidden": 0.1, "contrast": 0.2, "seconds": 1.0, "label_change": 0.5}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with shown:
        shown.show(record)
    line = "seed 3 1/5 ≤2min contra 1.00 intra 2.00 kept 0.90 changed 0.500"  # 100 s
    assert capsys.readouterr().out == "\r" + line[:cells].ljust(cells) + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    shown.show({**record, "epoch": 2})  # ten seconds later, and ten more
    shown.show({**record, "epoch": 3})
    assert [t[:16] for t in capsys.readouterr().out.splitlines()] == [
        "seed 3 2/5 ≤53s ",
        "seed 3 3/5 ≤30s ",
    ]


def test_a_reader_who_has_gone_away_ends_nothing(monkeypatch):
    class Stream(io.StringIO):
        reconfigure = lambda self, **options: calls.append(options)
        flush = lambda self: calls.append("flush")

    calls, gone = [], Stream()
    monkeypatch.setattr(sys, "stdout", gone)
    monkeypatch.setattr(warnings, "formatwarning", None)
    with warnings.catch_warnings():
        progress.open_streams()
    progress.say("heard", end="!")
    assert gone.getvalue() == "heard!" and calls == [{"errors": "replace"}, "flush"]
    gone.write = lambda _: (_ for _ in ()).throw(BrokenPipeError())
    with monkeypatch.context() as patch:  # pytest needs the real one
        patch.setattr(os, "dup2", lambda *pair: calls.append(pair))
        progress.say("not heard")
    with sys.stdout as nowhere:
        assert nowhere.name == os.devnull and calls[2:] == [(nowhere.fileno(), 1)]


def test_streams_that_a_caller_closed(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        progress.open_streams()
        assert warnings.formatwarning("x", UserWarning, "f", 1) == "note: x\n"
    with sys.stdout as out, sys.stderr as err:
        assert out.name == err.name == os.devnull and out.writable()


def test_predict_refuses_what_it_would_ignore_even_where_it_is_the_default(capsys):
    for given in (["--data", "BasicMotions"], ["--seeds", "0", "1", "2"]):
        assert train.main(["--predict", "BasicMotions", "--model", "m.pt", *given]) == 2
        assert f"{given[0]} does not apply to --predict" in capsys.readouterr().err


def test_help_tells_what_each_option_is():
    told = " ".join(train.parser().format_help().split())
    for part in ("--clusters g [g ...]", "--jobs N", "--model FILE", "--tau X", "nothing is over"):
        assert part in told
    for name, default in train.defaults(EMTC).items():
        what = train.HELP[name].replace("%%", "%")
        assert f"{what}; default {'none' if default == () else default}" in told
    assert "--jobs N fit so many seeds at once, each in a process of its own; default 1" in told


def test_what_progress_and_the_checkpoints_are_told(noise, monkeypatch):
    told, saved, make = [], [], progress.Progress
    monkeypatch.setattr(train, "Progress", lambda *given: told.append(given) or make(*given))
    save = lambda run, seed, s: saved.append((seed, len(s["history"]), len(s["model"]["trials"])))
    monkeypatch.setattr(run_folder.Run, "save_checkpoint", save)
    run("--starts", "2", "--trial", "1", "--epochs", "1")
    assert saved == [(s, *n) for s in (0, 1) for n in ((0, 0), (0, 1), (1, 2))]
    run("--starts", "2", "--as-printed")
    with np.load("runs/noise/seed_1.npz") as file:
        assert file["trace_epochs"].tolist() == [1, 2, -1]
    starts = [(seed, used["n_starts"], *more) for seed, used, *more in told]
    shape = (30, 10, 2)
    assert starts == [(s, n, 1 - s, shape, True) for n in (2, 1) for s in (0, 1)]


def test_where_data_and_runs_lie_and_an_oracle_of_no_epoch(noise):
    Path("noise_TRAIN.npz").write_bytes(Path("noise.npz").read_bytes())
    for data, split in (("noise.npz", "own"), ("noise_TRAIN.npz", "train")):
        run("--epochs", "0", "--oracle", "--out", split, data=data)
        assert json.loads(Path(split, "config.json").read_text())["split"] == split
    Path("my/Odd").mkdir(parents=True)
    for split in ("TRAIN", "TEST"):  # found by its name in --data-dir
        text = "@problemName o\n@classLabel true b a\n@data\n1,2:a\n2,7:b\n5,3:a\n"
        Path(f"my/Odd/Odd_{split}.ts").write_text(text)
    run("--epochs", "0", "--data-dir", "my", data="Odd")
    Path("a b.npz").write_bytes(Path("noise.npz").read_bytes())
    run("--epochs", "0", data="a b.npz")
    assert Path("runs/Odd/labels.csv").exists() and Path("runs/a_b/labels.csv").exists()
    found = json.loads(Path("own/results.json").read_text())
    assert [r["epoch"] for r in found["oracle"]["per_seed"]] == [0, 0]
    assert found["oracle"]["ACC"] == found["final"]["ACC"]


def test_a_bug_of_ours_is_no_users_mistake(noise, monkeypatch, capsys):
    def fail(message):
        def load(*_, **__):
            raise RuntimeError(message)

        monkeypatch.setattr(train, "load", load)

    fail("not enough memory: you tried to allocate")
    assert "not enough memory" in told(capsys)
    fail("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="multiplied"):
        train.main([])


def test_without_labels_g_must_be_said(noise, capsys):
    assert "bare has no labels; say how many clusters: --clusters g" in told(
        capsys, "--data", "bare.npz"
    )
    assert "--oracle needs some" in told(
        capsys, "--data", "bare.npz", "--clusters", "2", "--oracle"
    )
