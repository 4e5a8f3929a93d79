"""Several processes give what one gives: EMTC, and train.py under torchrun, resumed by any number."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import train
from emtc import TERMS
from test_emtc import fitted, toy

ROOT = Path(__file__).resolve().parent.parent
RUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL = ("--quiet", "--seeds", "0", "1", "--epochs", "3", "--starts", "2", "--trial", "1",
         "--init", "3", "--width", "8", "--batch-size", "5")  # fmt: skip


def two(*options):
    done = subprocess.run([*RUN, str(ROOT / "train.py"), *options], cwd=ROOT, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def gappy():
    """An odd number of series, so that the last batch is one series, and values are missing."""
    X = toy(13)
    X[3, 15:], X[5, 4, 1] = np.nan, np.nan
    return X


def one_rank(rank, folder):
    """Save what a fit gives in one of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", timedelta(seconds=60), 2, rank)
    model = fitted(gappy(), epochs=2, n_starts=2)
    losses = [[r[t] for t in TERMS] for r in model.history_]
    arrays = {"E": model.embedding_, "C": model.labels_, "M": model.mask_, "losses": losses}
    np.savez(f"{folder}/{rank}.npz", **arrays)
    dist.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    # Forked, as the import of torch by a new process would take most of the time.
    mp.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    one = fitted(gappy(), epochs=2, n_starts=2)
    losses = [[r[t] for t in TERMS] for r in one.history_]
    for rank in (0, 1):
        got = np.load(tmp_path / f"{rank}.npz")
        np.testing.assert_allclose(got["losses"], losses, rtol=1e-4)
        np.testing.assert_allclose(got["E"], one.embedding_, atol=1e-3)
        assert np.array_equal(got["C"], one.labels_) and np.array_equal(got["M"], one.mask_)


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = np.sin(
        np.arange(20)[:, None] * rng.uniform(0.2, 1.5, (13, 1, 2)) + rng.uniform(0, 6, (13, 1, 2))
    )
    np.savez(tmp_path / "own.npz", X=X.astype(np.float32), y=np.arange(13) % 2)
    data = ("--data", str(tmp_path / "own.npz"), *SMALL)
    status, out, err = two(*data, "--out", str(tmp_path / "two"))
    assert status == 0, err
    assert out.count("last epoch") == 1  # one process is heard
    assert train.main([*data, "--out", str(tmp_path / "one")]) == 0
    read = lambda name, file: (tmp_path / name / file).read_text()
    assert read("one", "labels.csv") == read("two", "labels.csv")
    one, two_ = (json.loads(read(name, "results.json")) for name in ("one", "two"))
    assert one["final"] == two_["final"] and (tmp_path / "two" / "report.html").exists()
    logs = [[json.loads(x) for x in read(n, "log.jsonl").splitlines()] for n in ("one", "two")]
    for a, b in zip(*logs, strict=True):
        assert a["total"] == pytest.approx(b["total"], rel=1e-4)
    # A finished run is resumed by one process, a run of one by two.
    assert train.main([*data, "--out", str(tmp_path / "two"), "--resume"]) == 0
    status, _, err = two(*data, "--out", str(tmp_path / "one"), "--resume")
    assert status == 0, err
    assert read("one", "labels.csv") == read("two", "labels.csv")
    status, _, err = two("--data", str(tmp_path / "none.npz"))
    assert status != 0 and "error:" in err
