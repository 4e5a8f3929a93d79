"""Kills, full disks, damaged files, second processes, missing values, numbers that blow up."""

import errno
import json
import os
import shutil
import signal
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

import reliability
import run_folder
import train
from emtc import EMTC
from metrics import accuracy
from uea_loader import load

SHORT = ["--data", "small.npz", "--seeds", "0", "1", "--epochs", "3", "--oracle", "--quiet"]
X, Y, _ = reliability.hard_cases()["times 1e6"]


@pytest.fixture(autouse=True)
def one_thread(whole, monkeypatch):
    """Bits repeat for one number of threads; and a process with one can be forked."""
    monkeypatch.chdir(whole.parent)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed; small.npz lies beside it."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("whole") / "run"
    np.savez(folder.with_name("small.npz"), X=X, y=Y)
    np.savez(folder.with_name("other.npz"), X=X[::-1], y=Y[::-1])
    torch.set_num_threads(1)
    assert train.main([*SHORT, "--data", str(folder.with_name("small.npz")), "--out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return folder


def equal(folder, whole):
    return reliability.same(reliability.contents(folder), reliability.contents(whole))


def resume(folder, *more):
    return train.main([*SHORT, "--out", str(folder), "--resume", *more])


def error_line(capsys, status, expected=2):
    """The one line on stderr of a command that ended with `expected`."""
    lines = capsys.readouterr().err.splitlines()
    assert status == expected and len(lines) == 1, lines
    return lines[0]


def stop_at(monkeypatch, line, act):
    """Call act() in place of writing the `line`-th line of log.jsonl, once."""
    write_line, count = run_folder.Run.log, iter(range(1, 1000))
    monkeypatch.setattr(run_folder.Run, "log", lambda *a: act() if next(count) == line else write_line(*a))


# ---------------------------------------------------------------- kills and other ends

def test_same_sees_one_bit():
    a = {"x": [np.arange(3.0), torch.ones(2)], "seconds": 1}
    assert reliability.same(a, {"x": [np.arange(3.0), torch.ones(2)], "seconds": 2})
    assert not reliability.same(a, {"x": [np.arange(3.0), torch.tensor([1, np.nextafter(np.float32(1), 2)])],
                                    "seconds": 1})
    assert not reliability.same(a, {"x": [np.arange(3.0)], "seconds": 1})
    assert not reliability.same(a, {"x": a["x"], "seconds": 1, "y": 0})


def in_a_child(act):
    """How a process ends, by os.wait's status, that does act() and exits with what it returns."""
    if (child := os.fork()) == 0:  # and not a new interpreter: this saves the imports
        status = 99
        try:
            status = act()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_inside_writes(tmp_path, whole):
    folder, seen = tmp_path / "run", []

    def killed(mode, number):
        reliability.sabotage(mode, number)
        return resume(folder)

    # A start renames: config, log, a checkpoint an epoch, model, seed_0.npz, results, labels, log, ...
    for mode, number in (("half", 4), ("before", 5), ("after", 3), ("log", 2)):
        assert os.WTERMSIG(in_a_child(partial(killed, mode, number))) == signal.SIGKILL
        seeds, damaged = reliability.finished(folder)
        seen.append((sorted(seeds), reliability.progress(folder), list(folder.glob("*.part")) != []))
        assert not damaged
    # half a checkpoint; all but the renaming of seed_0.npz; seed 0 done, results not; half a log line
    assert seen == [([], 1, True), ([], 3, True), ([0], 3, False), ([0], 4, False)]
    assert resume(folder) == 0 and equal(folder, whole)
    assert not [f.name for f in folder.iterdir() if f.suffix in (".part", ".tmp")]


@pytest.mark.campaign
def test_fifty_kills(tmp_path):
    assert reliability.main(["--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "reliability.json").read_text())["summary"]
    assert summary["kills"] == 50 and summary["finished_seeds_lost"] == summary["damaged_files"] == 0


def test_ctrl_c_says_how_to_go_on(tmp_path, whole, monkeypatch, capsys):
    stop_at(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    status = train.main([*SHORT, "--out", str(tmp_path / "run")])
    told = capsys.readouterr().err.strip()
    assert status == 130 and len(told.splitlines()) == 1 and "--resume" in told and str(tmp_path) in told
    assert resume(tmp_path / "run") == 0 and equal(tmp_path / "run", whole)


def test_resume_of_a_finished_run_prints_it_again(tmp_path, whole, monkeypatch, capsys):
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(train, "fit_seed", None)  # nothing is trained
    assert resume(tmp_path / "run") == 0
    assert "mean ± std" in capsys.readouterr().out and equal(tmp_path / "run", whole)


@pytest.mark.parametrize("more, names", [
    (["--epochs", "4"], "epochs 3 (now 4)"), (["--tau", "0.2"], "tau 0.1 (now 0.2)"), (["--seeds", "0"], "seeds"),
    (["--data", "other.npz"], "data_hash"), (["--clusters", "4"], "n_clusters 3 (now 4)"),
    (["--drop", "intra"], "drop [] (now ['intra'])")])
def test_resume_with_other_settings_or_data(whole, capsys, more, names):
    before = reliability.contents(whole)
    told = error_line(capsys, resume(whole, *more))
    assert names in told and reliability.same(before, reliability.contents(whole))


def test_resume_without_a_run_starts_one(tmp_path, capsys):
    assert resume(tmp_path / "new") == 0
    assert "starting one" in capsys.readouterr().err


def test_a_new_run_moves_the_old_one_aside(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    for n in (1, 2):
        assert train.main([*SHORT, "--seeds", "0", "--out", str(tmp_path / "run")]) == 0
        assert (tmp_path / f"run.{n}").is_dir()
    assert equal(tmp_path / "run.1", whole) and not equal(tmp_path / "run.2", whole)


def test_a_second_process_is_refused(tmp_path, whole, capsys):
    shutil.copytree(whole, tmp_path / "run")
    held = run_folder.lock(tmp_path / "run")
    for more in ([], ["--resume"]):
        assert "another run" in error_line(capsys, train.main([*SHORT, "--out", str(tmp_path / "run"), *more]))
    held.close()
    assert equal(tmp_path / "run", whole) and not (tmp_path / "run.1").exists()


def one_bit_off(path):
    """The bytes of a zipped file, one bit of the largest array wrong."""
    with zipfile.ZipFile(path) as file:
        inside = file.read(max(file.infolist(), key=lambda member: member.file_size))
    content = bytearray(path.read_bytes())
    content[content.index(inside) + len(inside) // 2] ^= 1
    return content


def test_a_damaged_file_is_noticed_and_made_again(tmp_path, whole, monkeypatch, capsys):
    folder = tmp_path / "run"
    stop_at(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGINT))
    assert train.main([*SHORT, "--out", str(folder)]) == 130
    for name in ("seed_0.npz", "checkpoint_seed1.pt"):
        (folder / name).write_bytes(one_bit_off(folder / name))
    assert resume(folder) == 0 and equal(folder, whole)
    assert capsys.readouterr().err.count("is damaged") == 2


def test_the_last_epoch_is_reported_and_the_best_kept_apart(tmp_path):
    rng = np.random.default_rng(0)
    noise, y = rng.normal(size=(30, 10, 2)).astype(np.float32), rng.integers(0, 3, 30)  # no clusters: epochs differ
    np.savez(tmp_path / "noise.npz", X=noise, y=y)
    command = ["--data", str(tmp_path / "noise.npz"), "--out", str(tmp_path / "run"), "--epochs", "4", "--lr", "0.05"]
    assert train.main([*command, "--seeds", "0", "1", "--oracle", "--quiet"]) == 0
    found = reliability.contents(tmp_path / "run")
    columns = list(zip(*(line.split(",") for line in found["labels.csv"].split())))
    gaps = []
    for seed in (0, 1):
        epochs = []
        model = EMTC(len(set(y)), epochs=4, lr=0.05, seed=seed)
        model.fit(noise, on_epoch=lambda m, r, epochs=epochs: epochs.append(accuracy(y, m.labels_)))
        last, best = accuracy(y, model.labels_), max([*epochs, accuracy(y, model.labels_)])
        assert found["results.json"]["per_seed"][seed]["ACC"] == last
        assert found["results.json"]["oracle"]["per_seed"][seed]["ACC"] == best
        assert columns[2 + seed] == (f"seed_{seed}", *map(str, model.labels_))
        gaps.append(best - last)
    assert columns[2][1:] != columns[3][1:] and max(gaps) > 0  # otherwise this test shows nothing


# ---------------------------------------------------------------- disks

def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    monkeypatch.setattr(train, "run_seeds", None)  # refused before any training
    for out in ("file/run", "file", "photos"):
        assert str(tmp_path) in error_line(capsys, train.main([*SHORT, "--out", str(tmp_path / out)]))
    assert [f.name for f in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("victim, seeds", [
    ("config.json", set()), ("model_seed0.pt", set()), ("seed_0.npz", set()), ("checkpoint_seed1.pt", {0})])
def test_a_full_disk_loses_nothing(tmp_path, whole, monkeypatch, capsys, victim, seeds):
    folder, replace, full = tmp_path / "run", os.replace, []

    def replace_until_full(source, target):
        full.extend([1] if os.path.basename(target) == victim else [])
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until_full)
        told = error_line(capsys, train.main([*SHORT, "--out", str(folder)]))
    assert "No space left" in told and reliability.finished(folder) == (seeds, [])
    assert not list(folder.glob("*.part"))
    assert resume(folder) == 0 and equal(folder, whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_writes_that_the_system_cuts_short(tmp_path, whole, capfd):
    """A limit on the size of files stands for the full disk: the system itself stops the writing."""
    resource, folder = pytest.importorskip("resource"), tmp_path / "run"

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # enough for a config, not for a checkpoint
        return train.main([*SHORT, "--out", str(folder)])

    assert os.WEXITSTATUS(in_a_child(limited)) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1 and reliability.finished(folder) == (set(), [])
    assert resume(folder) == 0 and equal(folder, whole)


# ---------------------------------------------------------------- hard numbers, missing values, padding

REFUSED = {"lr 1000": "epoch", "lr 1e9": "epoch", "N = 1": "one sample"}


@pytest.mark.parametrize("name", reliability.hard_cases())
def test_hard_numbers(tmp_path, capsys, name):
    outcome = reliability.hard_case(train.main, tmp_path, *reliability.hard_cases()[name])
    if name not in REFUSED:
        assert outcome == "finite results" and capsys.readouterr().err == ""
        return
    told = error_line(capsys, int(outcome.split()[-1]))
    assert REFUSED[name] in told
    if "loss" in told:  # the last good checkpoint stays
        kept = torch.load(next((tmp_path / "out").glob("checkpoint*")), weights_only=True)
        assert reliability.all_finite(kept["history"]) and kept["history"]


def test_equal_samples_share_a_cluster():
    twin = reliability.hard_cases()["two equal samples in different classes"][0]
    labels = EMTC(3, epochs=2, mask="none").fit_predict(twin)
    assert labels[0] == labels[1]


def test_a_fifth_of_the_values_missing():
    full, y, _, _ = load("BasicMotions")
    holes, score = full.copy(), []
    holes[np.random.default_rng(0).random(full.shape) < 0.2] = np.nan
    for data in (full, holes):
        model = EMTC(4, epochs=10).fit(data)
        assert all(np.isfinite(list(r.values())).all() for r in model.history_)
        assert np.isfinite(model.embedding_).all() and np.isfinite(model.importance_).all()
        score.append(accuracy(y, model.labels_))
    assert not model.mask_[np.isnan(holes)].any()  # True = keep: a missing entry is never kept
    assert abs(score[0] - score[1]) <= 0.1


@pytest.mark.parametrize("mask", ["evolving", "uniform", "frequency"])
def test_padding_changes_no_label(mask):
    series = X.copy()
    for n, length in enumerate(np.random.default_rng(1).integers(8, 21, len(X))):
        series[n, length:] = np.nan  # unequal lengths
    longer = np.pad(series, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan)
    a, b = (EMTC(3, epochs=4, mask=mask).fit(data) for data in (series, longer))
    assert (a.labels_ == b.labels_).all() and b.mask_.shape == longer.shape and not b.mask_[:, 20:].any()
    assert (a.predict(series) == a.predict(longer)).all()


# ---------------------------------------------------------------- save, load, predict

def test_saved_and_loaded_model_predicts_the_same(tmp_path, whole, capsys):
    fitted, new = EMTC(3, epochs=2).fit(X), X[:, ::-1].copy()
    fitted.save(tmp_path / "m.pt")
    loaded = EMTC.load(tmp_path / "m.pt")
    assert (loaded.transform(new) == fitted.transform(new)).all()
    assert (loaded.predict(new) == fitted.predict(new)).all()
    np.savez(tmp_path / "new.npz", X=new)
    command = ["--predict", str(tmp_path / "new.npz"), "--model", str(whole / "model_seed1.pt")]
    expected = EMTC.load(whole / "model_seed1.pt").predict(new)
    for out in ([], ["--out", str(tmp_path / "labels.csv")]):
        assert train.main([*command, *out]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "labels.csv").read_text()
    assert printed.split() == ["sample,cluster", *(f"{n},{c}" for n, c in enumerate(expected))]
    assert "exists" in error_line(capsys, train.main([*command, *out]))  # nothing is overwritten


def test_no_model(tmp_path, whole, capsys):
    torch.save({"x": torch.ones(3)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "damaged.pt").write_bytes(one_bit_off(whole / "model_seed0.pt"))
    for name in ("other.pt", "text.pt", "damaged.pt", "none.pt"):
        told = error_line(capsys, train.main(["--predict", "small.npz", "--model", str(tmp_path / name)]))
        assert name in told
