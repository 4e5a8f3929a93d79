"""Does a run survive being killed, and does hard data end in a result or in one clear line?

    python experiments/reliability.py            # 50 kills: results/reliability.json
    python experiments/reliability.py --quick    # 6 kills:  results/quick/reliability.json

Real `train.py` processes end by SIGKILL: some after a random time, some inside a randomly chosen
write (the temporary file cut in half, just before its renaming, just after it, or half a line into
log.jsonl). After each kill the folder is looked at: no finished seed gone, no file damaged. Then
`--resume`, and the next kill, until a run ends; its files must equal those of a run that never
stopped, bit for bit, but for the seconds. Then the next run, until all kills are spent.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch

import common

MODES = ("time", "time", "half", "before", "after", "log")  # every third kill by the clock
TRAIN = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); import train; "
         "sys.exit(train.main(sys.argv[1:]))", str(common.ROOT)]
SABOTAGED = [sys.executable, str(Path(__file__).resolve()), "--child"]
SETTINGS = ["--seeds", "0", "1", "2", "--oracle", "--quiet"]


# ---------------------------------------------------------------- killed from inside a write

def sabotage(mode, count):
    """From now on this process kills itself inside its `count`-th renaming, or in log.jsonl's `count`-th line."""
    import run_folder
    replace, line, left = os.replace, run_folder.log_line, [count]

    def due():
        left[0] -= 1
        return left[0] == 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def fatal_replace(source, target):
        now = due()
        if now and mode == "half":
            os.truncate(source, os.path.getsize(source) // 2)
        if now and mode in ("half", "before"):
            die()
        replace(source, target)
        if now:
            die()

    def fatal_log(run, seed, record):
        with open(run.folder / "log.jsonl", "a", encoding="utf-8") as file:
            text = line(seed, record)
            now = due()
            file.write(text[:len(text) // 2] if now else text)
            file.flush()
            if now:
                die()

    if mode == "log":
        run_folder.Run.log = fatal_log
    else:
        os.replace = fatal_replace


def child(mode, count, argv):
    import train
    sabotage(mode, int(count))
    return train.main(argv)


# ---------------------------------------------------------------- what a folder holds

def finished(folder):
    """Seeds whose .npz is there and whole, and the names of all damaged files."""
    seeds, damaged = set(), []
    for file in sorted(folder.glob("*")):
        try:
            if file.suffix in (".npz", ".pt"):
                with zipfile.ZipFile(file) as z:
                    assert z.testzip() is None
                if file.suffix == ".npz":
                    seeds.add(int(file.stem.removeprefix("seed_")))
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
        except (zipfile.BadZipFile, ValueError, AssertionError):
            damaged.append(file.name)
    return seeds, damaged


def same(a, b):
    """Equality to the last bit of nested dicts, lists, tensors and arrays; "seconds" may differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(k == "seconds" or same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if torch.is_tensor(a) and torch.is_tensor(b):
        return same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


def contents(folder):
    """{file name: what it says} of a finished run's folder."""
    read = {}
    for file in folder.iterdir():
        if file.suffix == ".pt":
            read[file.name] = torch.load(file, weights_only=True)
        elif file.suffix == ".npz":
            with np.load(file) as f:
                read[file.name] = {k: f[k] if k != "record" else json.loads(str(f[k])) for k in f.files}
        elif file.suffix == ".json":
            read[file.name] = json.loads(file.read_text(encoding="utf-8"))
        else:
            read[file.name] = file.read_text(encoding="utf-8")
    return read


def progress(folder):
    """Where the run stands: lines of log.jsonl, a half one not counted."""
    log = folder / "log.jsonl"
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


# ---------------------------------------------------------------- the campaign

def reference(folder, settings, env=None):
    """A run that nobody stops: (contents, seconds)."""
    start = time.perf_counter()
    subprocess.run([*TRAIN, *settings, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL, env=env)
    return contents(folder), time.perf_counter() - start


def kill_once(folder, settings, mode, moment, env=None):
    """Start or go on with the run in `folder` and kill it; returns its exit status, -9 if the kill came in time.

    moment: seconds after the start for mode "time", else the number of the write, from 1.
    """
    start = TRAIN if mode == "time" else [*SABOTAGED, mode, str(moment)]
    process = subprocess.Popen([*start, *settings, "--out", str(folder), "--resume"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    try:
        process.communicate(timeout=moment if mode == "time" else 300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def campaign(kills, epochs, work, seed=0):
    """Returns (records, one per start; summary). See the module's docstring."""
    settings = [*SETTINGS, "--epochs", str(epochs)]
    expected, whole = reference(work / "reference", settings)
    print(f"a run that nobody stops: {whole:.1f} s, {len(expected)} files", flush=True)
    rng, records, run, before = random.Random(seed), [], 1, set()
    while sum(r["killed"] for r in records) < kills or records[-1]["killed"]:  # the last run ends too
        folder, killing = work / f"run{run}", sum(r["killed"] for r in records) < kills
        mode = rng.choice(MODES) if killing else "time"
        moment = round(rng.uniform(0, 1.2 * whole), 3) if mode == "time" else rng.randint(1, 2 * epochs)
        status = kill_once(folder, settings, mode, moment if killing else 600)
        seeds, damaged = finished(folder) if folder.is_dir() else (set(), [])
        records.append({"run": run, "mode": mode, "moment": moment, "killed": status == -signal.SIGKILL,
                        "status": status, "epochs_logged": progress(folder), "finished": sorted(seeds),
                        "lost": sorted(before - seeds), "damaged": damaged, "equal": None})
        before = seeds
        if status != -signal.SIGKILL:  # the run came to its end
            records[-1]["equal"] = status == 0 and same(contents(folder), expected)
            shutil.rmtree(folder)
            run, before = run + 1, set()
        print(f"[{sum(r['killed'] for r in records):2d}/{kills}] " + " ".join(
            f"{k} {v}" for k, v in records[-1].items() if k not in ("killed", "status")), flush=True)
    ended = [r for r in records if not r["killed"]]
    return records, {
        "kills": sum(r["killed"] for r in records),
        "kills_by_mode": {m: sum(r["killed"] and r["mode"] == m for r in records) for m in dict.fromkeys(MODES)},
        "kills_with_a_finished_seed": sum(bool(r["finished"]) for r in records if r["killed"]),
        "runs_ended": len(ended), "runs_equal_to_the_uninterrupted_one": sum(r["equal"] for r in ended),
        "finished_seeds_lost": sum(len(r["lost"]) for r in records),
        "damaged_files": sum(len(r["damaged"]) for r in records)}


# ---------------------------------------------------------------- hard numbers

def hard_cases():
    """{name: X (N, T, D), y (N,), extra options}: data that blow numbers up."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 20, 3)).astype(np.float32)
    y = np.arange(12) % 3
    X += 2 * np.sin(np.arange(20)[:, None] * (1 + y[:, None, None]))
    X = X.astype(np.float32)
    constant, twin = X.copy(), X.copy()
    constant[:, :, 1], twin[1] = 7.0, twin[0]
    steep = X.copy()
    steep[:, :, 0] = 1e30 * X[:, :, 0]
    return {
        "times 1e6": (X * 1e6, y, []), "times 1e-6": (X * 1e-6, y, []), "plus 1e4": (X + 1e4, y, []),
        "one variate of 1e30": (steep, y, []), "one variate constant": (constant, y, []),
        "all samples equal": (np.repeat(X[:1], 12, 0), y, []), "all values equal": (np.ones_like(X), y, []),
        "two equal samples in different classes": (twin, y, []),
        "N = 2": (X[:2], y[:2], []), "T = 3": (X[:, :3], y, []), "T = 1": (X[:, :1], y, []),
        "D = 1": (X[:, :, :1], y, []), "g = N": (X, np.arange(12), []), "g = 1": (X, y, ["--clusters", "1"]),
        "batches of 1": (X, y, ["--batch-size", "1"]), "lr 1000": (X, y, ["--lr", "1000"]),
        "lr 1e9": (X, y, ["--lr", "1e9"]), "tau 1e-6": (X, y, ["--tau", "1e-6"]), "N = 1": (X[:1], y[:1], [])}


def all_finite(value):
    """No NaN and no infinity in nested dicts, lists, numbers and arrays."""
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(all_finite, value))
    if isinstance(value, (float, np.ndarray)) and not (isinstance(value, np.ndarray) and value.dtype.kind in "US"):
        return bool(np.isfinite(value).all())
    return True


def hard_case(main, folder, X, y, options):
    """Run `train.py` on X, y through its `main`: "finite results", or the exit status where it refuses."""
    np.savez(folder / "Hard.npz", X=X, y=y)
    status = main(["--data", str(folder / "Hard.npz"), "--out", str(folder / "out"), "--epochs", "3",
                   "--seeds", "0", "1", "--oracle", "--quiet", *options])
    if status:
        return f"refused, exit status {status}"
    return "finite results" if all_finite(contents(folder / "out")) else "NOT FINITE"


def hard_numbers():
    """{case: what train.py does}."""
    import train
    outcome = {}
    for name, (X, y, options) in hard_cases().items():
        quiet = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(quiet), redirect_stderr(quiet):
            outcome[name] = hard_case(train.main, Path(folder), X, y, options)
    return outcome


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--child"]:
        return child(argv[1], argv[2], argv[3:])
    parser = argparse.ArgumentParser(prog="experiments/reliability.py", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="6 kills, kept apart in results/quick")
    parser.add_argument("--kills", type=int, metavar="N", help="default: 50, with --quick 6")
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="of each seed; default: 8")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the JSON (default: results)")
    args = parser.parse_args(argv)
    kills = args.kills or (6 if args.quick else 50)
    with tempfile.TemporaryDirectory() as work:
        records, summary = campaign(kills, args.epochs, Path(work))
    numbers = hard_numbers()
    out = args.out or common.ROOT / "results" / ("quick" if args.quick else "")
    common.write_json(out / "reliability.json", {
        "experiment": "reliability", "made_with": {"torch": torch.__version__, "numpy": np.__version__},
        "epochs": args.epochs, "summary": summary, "hard_numbers": numbers, "runs": records})
    print(json.dumps(summary, indent=1))
    failed = (summary["finished_seeds_lost"] or summary["damaged_files"] or "NOT FINITE" in numbers.values()
              or summary["runs_ended"] != summary["runs_equal_to_the_uninterrupted_one"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
