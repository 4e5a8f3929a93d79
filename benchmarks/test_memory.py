"""Guards of the memory bounds: attention never stores its T x T weights, k-means no N x k x d array. No time is asserted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import clustering

ROOT = Path(__file__).resolve().parent.parent
T, LIMIT = 16384, 300  # one T x T matrix of floats is 1024 MB
RUN = """
import torch
from benchmarks.scaling import peak
from emtc import Importance
torch.set_num_threads(1)
net = Importance(1)
def step(T):
    net(torch.randn(1, 1, T), torch.ones(1, 1, T, dtype=torch.bool)).sum().backward()
step(64)
before = peak()
step({T})
print((peak() - before) / 2 ** 20)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
def test_attention_memory_is_linear_in_T():
    run = subprocess.run([sys.executable, "-c", RUN.replace("{T}", str(T))], cwd=ROOT, capture_output=True, text=True,
                         env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < LIMIT


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
@pytest.mark.parametrize("N, k, d", [(200_000, 50, 64), (20_000, 50, 1000)])
def test_kmeans_memory_is_bounded(N, k, d):
    assert clustering.peak_memory(N, k, d) < clustering.MEMORY
