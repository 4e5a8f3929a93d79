"""Memory is bounded: no T x T weights, N x N similarities, N x k x d array. No time is judged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import clustering

ROOT = Path(__file__).resolve().parent.parent
linux = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="read from /proc")

START = """
import torch
from benchmarks.epoch import made, peak
from emtc import EMTC, Importance
torch.set_num_threads(1)
"""
ATTENTION = """
net = Importance(1, 4, 16384, torch.Generator().manual_seed(0))
run = lambda T: net(torch.randn(1, 1, T), torch.ones(1, 1, T, dtype=torch.bool)).sum().backward()
run(64)
before = peak()
run(16384)
"""
MANY = """
run = lambda N: EMTC(2, epochs=1, n_starts=1, n_init=1, batch_size=1024, width=8, device="cpu").fit(
    made(N, 8, 1, 2))
run(64)
before = peak()
run(24576)
"""


def peak_of(code):
    """The MB by which the code raises the peak after its line `before = ...`."""
    code = START + code + "print((peak() - before) / 2**20)"
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    return float(run.stdout)


@linux
@pytest.mark.slow
def test_attention_stores_no_weights():
    assert peak_of(ATTENTION) < 300  # one T x T matrix of floats takes 1024 MB


@linux
@pytest.mark.slow
def test_an_epoch_of_many_series_stores_no_similarities_of_all():
    assert peak_of(MANY) < 1000  # one N x N matrix of floats takes 2304 MB


@linux
@pytest.mark.slow
@pytest.mark.parametrize("N, d, k", [(50_000, 40, 40), (2_000, 1000, 40)])
def test_kmeans_stores_no_differences(N, d, k):
    assert 4 * N * d * k / 2**20 > 1.9 * clustering.MEMORY
    assert clustering.peak_memory(N, d, k) < clustering.MEMORY
