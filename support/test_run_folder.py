"""A run that is killed, resumed, refused, out of disk: nothing on disk is lost.

`python -m pytest support/test_run_folder.py -m campaign -s` kills fifty times, for some minutes.
"""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from emtc import EMTC
from support import jobs, run_folder
from support.files import intact

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["--seeds", "0", "1", "--epochs", "3", "--oracle", "--quiet"]
SHORT += ["--width", "8", "--starts", "1", "--init", "2"]


def series(N=12, T=20, D=3):
    """Three classes of waves; X (N, T, D) float32, y (N,)."""
    rng, y, t = np.random.default_rng(0), np.arange(N) % 3, np.arange(T)
    wave = 2 * np.sin(t[:, None] * (1 + y[:, None, None]))
    return (rng.normal(size=(N, T, D)) + wave).astype(np.float32), y


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed; small.npz lies beside it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    X, y = series()
    np.savez(folder.with_name("small.npz"), X=X, y=y)
    np.savez(folder.with_name("other.npz"), X=X[::-1], y=y[::-1])
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(folder.parent)
        assert run(folder) == 0
    return folder


@contextlib.contextmanager
def one_thread():
    """Bits repeat for one number of threads; and a process with one can be forked."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def beside(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    # A job under nohup ignores SIGINT, and Python then sets no handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with one_thread():
        yield
    signal.signal(signal.SIGINT, before)


def run(folder, *more):
    return train.main(["--data", "small.npz", *SHORT, "--out", str(folder), *more])


def resume(folder, *more):
    return run(folder, "--resume", *more)


def told(capsys, status):
    """The one line on stderr of a command that refused its input."""
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1, lines
    return lines[0]


def read(file):
    if file.suffix == ".pt":
        return torch.load(file, weights_only=True)
    if file.suffix == ".npz":
        with np.load(file) as found:
            return {
                key: json.loads(str(found[key])) if key == "record" else found[key] for key in found
            }
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else text


def contents(folder):
    """{file name: what it says} of a finished run's folder, but for the page, which has seconds."""
    return {file.name: read(file) for file in folder.iterdir() if file.suffix != ".html"}


def same(a, b):
    """Equality to the last bit of dicts, lists, tensors and arrays; "seconds" may differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(k == "seconds" or same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if torch.is_tensor(a) or isinstance(a, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


def equal(folder, whole):
    return same(contents(folder), contents(whole))


def state(folder):
    """(finished seeds, damaged files, whole lines of the log) of a folder after a kill."""
    files = [f for f in folder.glob("*") if f.suffix in (".npz", ".pt")]
    damaged = [f.name for f in files if not intact(f)]
    for file in folder.glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").count("\n") if log.exists() else 0
    return sorted(int(f.stem[5:]) for f in files if f.suffix == ".npz"), damaged, lines


def interrupt_at(monkeypatch, line):
    """Ctrl-C in place of writing the `line`-th line of log.jsonl, once."""
    write_line, count = run_folder.Run.log, iter(range(1, 1000))

    def log(*args):
        return signal.raise_signal(signal.SIGINT) if next(count) == line else write_line(*args)

    monkeypatch.setattr(run_folder.Run, "log", log)


# ---------------------------------------------------------------- kills


def sabotage(mode, count):
    """From now on this process kills itself in its `count`-th renaming, or line of the log."""
    replace, line, left = os.replace, run_folder.log_line, [count]

    def due():
        left[0] -= 1
        return left[0] == 0

    def fatal_replace(source, target):
        now = due()
        if now and mode == "half":
            os.truncate(source, os.path.getsize(source) // 2)
        if now and mode in ("half", "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def fatal_log(self, seed, record):
        text, now = line(seed, record), due()
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(text[: len(text) // 2] if now else text)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    if mode == "log":
        run_folder.Run.log = fatal_log
    else:
        os.replace = fatal_replace


def in_a_child(act):
    """How a process ends that does act() and exits with what it returns, by os.wait's status."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    if (child := os.fork()) == 0:
        status = 99
        try:
            status = act()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def test_same_sees_one_bit():
    a = {"x": [np.arange(3.0), torch.ones(2)], "seconds": 1}
    off = torch.tensor([1, np.nextafter(np.float32(1), 2)])
    assert same(a, {**a, "seconds": 2})
    assert not same(a, {"x": [np.arange(3.0), off], "seconds": 1})
    assert not same(a, {**a, "y": 0})


@pytest.mark.slow
def test_killed_inside_writes(tmp_path, whole):
    folder, seen = tmp_path / "run", []

    def killed(mode, number):
        sabotage(mode, number)
        return resume(folder)

    # A start renames: config, log, a checkpoint an epoch, model, seed_0.npz, results, labels, ...
    for mode, number in (("half", 4), ("before", 5), ("after", 3), ("log", 2)):
        assert os.WTERMSIG(in_a_child(partial(killed, mode, number))) == signal.SIGKILL
        seen.append((*state(folder), list(folder.glob("*.part")) != []))
    # half a checkpoint; all but the renaming of seed_0.npz; seed 0 done, results not; half a line
    assert seen == [([], [], 1, True), ([], [], 3, True), ([0], [], 3, False), ([0], [], 4, False)]
    assert resume(folder) == 0 and equal(folder, whole)
    assert not [f.name for f in folder.iterdir() if f.suffix in (".part", ".tmp")]


@pytest.mark.campaign
def test_fifty_kills(tmp_path, whole):
    """Real processes, SIGKILL at random moments or inside a random write; then --resume."""
    child = "import sys, train, support.test_run_folder as t; mode, count, *rest = sys.argv[1:]\n"
    child += "mode == 'time' or t.sabotage(mode, int(count)); sys.exit(train.main(rest))"
    command = ["--data", str(whole.parent / "small.npz"), *SHORT, "--resume", "--out"]
    rng, found = random.Random(0), {"kills": 0, "inside a write": 0, "runs": 0}
    folder, before = tmp_path / "run", set()
    while found["kills"] < 50 or before:  # the last run goes on to its end
        mode, count = rng.choice(("time", "half", "before", "after", "log")), rng.randint(1, 8)
        mode, count = (mode, count) if found["kills"] < 50 else ("time", 100)
        start = [sys.executable, "-c", child, mode, str(count), *command, str(folder)]
        process = subprocess.Popen(start, cwd=ROOT, stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(count if mode == "time" else 100)
        process.kill()
        killed = process.wait() == -signal.SIGKILL
        found["kills"] += killed
        found["inside a write"] += killed and mode != "time"
        seeds, damaged, _ = state(folder)
        assert not damaged and before <= set(seeds)
        before = set(seeds)
        if not killed:
            assert process.returncode == 0 and equal(folder, whole)
            shutil.rmtree(folder)
            found["runs"], before = found["runs"] + 1, set()
    print(json.dumps(found))


def test_ctrl_c_says_how_to_go_on(tmp_path, whole, monkeypatch, capsys):
    interrupt_at(monkeypatch, 5)
    folder, fit, epochs = tmp_path / "run", EMTC.fit, []
    assert run(folder) == 130
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1 and "--resume" in line and str(tmp_path) in line
    assert f"go on with: python {sys.argv[0]} " in line
    for left in ("x.part", "model_seed1.pt.7.tmp"):  # of a kill inside a write
        (folder / left).write_text("half")

    def noting(model, X, *, resume=None, **more):
        epochs.append(len(resume["history"]) if resume else 0)
        return fit(model, X, resume=resume, **more)

    monkeypatch.setattr(EMTC, "fit", noting)
    assert resume(folder) == 0 and equal(folder, whole)
    assert max(epochs) == 2 and capsys.readouterr().err == ""  # from the checkpoint, not anew


def one_bit_off(path):
    """The bytes of a zipped file, one bit of the largest member wrong."""
    with zipfile.ZipFile(path) as file:
        inside = file.read(max(file.infolist(), key=lambda member: member.file_size))
    content = bytearray(path.read_bytes())
    content[content.index(inside) + len(inside) // 2] ^= 1
    return content


WRONG = {  # of seed_0.npz: what a whole container may hold instead
    "no record": lambda f: f.pop("record"),
    "no labels": lambda f: f.pop("labels"),
    "short record": lambda f: f.update(record=json.dumps({"record": {}})),
    "no json": lambda f: f.update(record="x"),
    "short labels": lambda f: f.update(labels=f["labels"][1:]),
    "float labels": lambda f: f.update(labels=f["labels"] / 2),
    "a label too many": lambda f: f.update(labels=f["labels"] + 1),
    "a negative label": lambda f: f.update(labels=f["labels"] - 1),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_whole_container_with_wrong_content(tmp_path, whole, how, capsys):
    folder = shutil.copytree(whole, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    assert run_folder.Run(folder, config, True).finished(0)
    with np.load(folder / "seed_0.npz") as file:
        found = {key: file[key] for key in file}
    WRONG[how](found)
    np.savez(folder / "seed_0.npz", **found)
    opened = run_folder.Run(folder, config, True)
    assert opened.finished(0) is None and opened.finished(0) is None and opened.finished(1)
    assert capsys.readouterr().err.splitlines() == [
        "note: seed_0.npz is damaged; what it held is computed again"
    ]


@pytest.mark.parametrize(
    "how", ["one bit off", pytest.param("something else", marks=pytest.mark.slow)]
)
def test_damaged_files_are_noticed_and_made_again(tmp_path, whole, monkeypatch, capsys, how):
    folder = tmp_path / "run"
    interrupt_at(monkeypatch, 5)
    assert run(folder) == 130
    if how == "one bit off":
        for name in ("seed_0.npz", "checkpoint_seed1.pt"):
            (folder / name).write_bytes(one_bit_off(folder / name))
    else:
        np.savez(folder / "seed_0.npz", x=1)
        torch.save({"x": torch.ones(3)}, folder / "checkpoint_seed1.pt")
    capsys.readouterr()
    assert resume(folder) == 0 and equal(folder, whole)
    assert capsys.readouterr().err.count("is damaged") == 2


# ---------------------------------------------------------------- resume, other runs


def test_resume_of_a_finished_run_prints_it_again(tmp_path, whole, monkeypatch, capsys):
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr(train, "fit_seed", None)  # nothing is trained
    assert resume(tmp_path / "run") == 0
    assert "mean ± std" in capsys.readouterr().out and equal(tmp_path / "run", whole)


def test_resume_with_other_settings_or_data(whole, capsys):
    before = contents(whole)
    for more, names in {
        "--epochs 4": "epochs 3 (now 4)",
        "--tau 0.2": "tau 0.1 (now 0.2)",
        "--seeds 0": "seeds [0, 1] (now [0])",
        "--seeds 0 2": "seeds",
        "--data other.npz": "data_hash",
        "--clusters 4": "n_clusters 3 (now 4)",
        "--drop intra": "drop [] (now ['intra'])",
    }.items():
        assert names in told(capsys, resume(whole, *more.split()))
    assert same(before, contents(whole))


def test_further_seeds_join_a_run(tmp_path, whole, monkeypatch):
    folder, fitted, fit = shutil.copytree(whole, tmp_path / "run"), [], train.fit_seed
    noting = lambda run, job, seed, n: fitted.append((seed, n)) or fit(run, job, seed, n)
    monkeypatch.setattr(train, "fit_seed", noting)
    before = {name: (folder / name).stat().st_mtime_ns for name in ("seed_0.npz", "model_seed1.pt")}
    assert resume(folder, "--seeds", "5", "0", "1", "3") == 0 and fitted == [(5, 1), (3, 0)]
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before}
    found, old = contents(folder), contents(whole)
    assert found["config.json"]["seeds"] == found["results.json"]["seeds"] == [5, 0, 1, 3]
    assert [s["seed"] for s in found["results.json"]["per_seed"]] == [5, 0, 1, 3]
    assert same(found["results.json"]["per_seed"][1:3], old["results.json"]["per_seed"])
    assert found["labels.csv"].split()[0] == "sample,class,seed_5,seed_0,seed_1,seed_3"
    lines = [json.loads(line)["seed"] for line in found["log.jsonl"].splitlines()]
    assert lines == [s for s in (5, 0, 1, 3) for _ in range(3)]


def test_resume_without_a_run_starts_one(tmp_path, capsys):
    assert resume(tmp_path / "new", "--seeds", "0", "--epochs", "0") == 0
    assert "starting one" in capsys.readouterr().err


def test_a_new_run_moves_the_old_one_aside(tmp_path, whole, capsys):
    shutil.copytree(whole, tmp_path / "run")
    for n in (1, 2):
        assert run(tmp_path / "run", "--seeds", "0", "--epochs", "1") == 0
        assert (tmp_path / f"run.{n}").is_dir()
        told = f"note: the older run in run is now {tmp_path}/run.{n}\n"
        assert capsys.readouterr().err == told
    assert equal(tmp_path / "run.1", whole) and not equal(tmp_path / "run.2", whole)


def test_a_second_process_is_refused(tmp_path, whole, capsys):
    shutil.copytree(whole, tmp_path / "run")
    held = run_folder.lock(tmp_path / "run")
    for command in (run, resume):
        assert "another run" in told(capsys, command(tmp_path / "run"))
    held.close()
    assert equal(tmp_path / "run", whole) and not (tmp_path / "run.1").exists()


@pytest.mark.slow
def test_seeds_side_by_side_are_the_same(tmp_path, whole):
    assert run(tmp_path / "run", "--jobs", "2") == 0 and equal(tmp_path / "run", whole)


@pytest.mark.campaign
def test_jobs_die_with_their_parent(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    options = "--data small.npz --quiet --jobs 2 --epochs 100000 --patience 100000 --out"
    command = [sys.executable, str(ROOT / "train.py"), *options.split(), str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not log.exists() or '"seed": 1' not in log.read_text():
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    time.sleep(2)
    size = log.stat().st_size
    time.sleep(3)
    assert log.stat().st_size == size
    run_folder.lock(folder).close()


@pytest.mark.parametrize(
    "error, kind", [(ValueError, ValueError), (OSError, OSError), (FloatingPointError, OSError)]
)
def test_an_error_in_one_of_the_jobs_keeps_its_kind(monkeypatch, error, kind):
    """train.py says of an OSError what stays for --resume; a ValueError is the user's mistake."""
    pool = lambda at_once, *of_processes: ThreadPoolExecutor(at_once)
    monkeypatch.setattr(jobs, "ProcessPoolExecutor", pool)

    def fails(seed):
        raise error("full")

    with pytest.raises(kind, match="seed 7: full"):
        jobs.side_by_side(fails, [(7,)], 1, print)


@pytest.mark.slow
def test_an_error_in_one_of_the_jobs_is_one_line(tmp_path, capsys):
    line = told(capsys, run(tmp_path / "run", "--jobs", "2", "--lr", "1e9", "--seeds", "7"))
    assert line.startswith("train.py: error: seed 7: ") and "epoch" in line


# ---------------------------------------------------------------- disks


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    monkeypatch.setattr(train, "fit_seeds", None)  # refused before any training
    for out in ("file/run", "file", "photos"):
        assert str(tmp_path) in told(capsys, run(tmp_path / out))
    assert "a.jpg" in told(capsys, run(tmp_path / "photos", "--clusters", "2", "3"))
    assert [f.name for f in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "victim, seeds",
    [("config.json", []), ("model_seed0.pt", []), ("seed_0.npz", []), ("checkpoint_seed1.pt", [0])]
    + [
        pytest.param(name, done, marks=pytest.mark.slow)
        for name, done in (("results.json", [0]), ("report.html", [0, 1]))
    ],  # fmt: skip
)
def test_a_full_disk_loses_nothing(tmp_path, whole, monkeypatch, capsys, victim, seeds):
    folder, replace, full = tmp_path / "run", os.replace, []

    def replace_until_full(source, target):
        full.extend([1] if os.path.basename(target) == victim else [])
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until_full)
        assert "No space left" in told(capsys, run(folder))
    assert state(folder)[:2] == (seeds, []) and not list(folder.glob("*.part"))
    assert resume(folder) == 0 and equal(folder, whole)


def test_writes_that_the_system_cuts_short(tmp_path, whole, capfd):
    """A limit on the size of files stands for the full disk: the system itself stops a write."""
    resource, folder = pytest.importorskip("resource"), tmp_path / "run"

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))  # a config fits, no checkpoint
        return run(folder)

    assert os.WEXITSTATUS(in_a_child(limited)) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1 and state(folder)[:2] == ([], [])
    assert resume(folder) == 0 and equal(folder, whole)
