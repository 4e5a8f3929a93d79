"""train.py under torchrun: the files of one process, from two; resumed by any number."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train

ROOT = Path(__file__).resolve().parent.parent
RUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL = ("--quiet", "--seeds", "0", "1", "--epochs", "3", "--starts", "2", "--trial", "1",
         "--init", "3", "--width", "8", "--batch-size", "5")  # fmt: skip


def two(*options):
    done = subprocess.run([*RUN, str(ROOT / "train.py"), *options], cwd=ROOT, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


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
