"""gpu.py runs, on whatever there is, and says in one line where no GPU is."""

import pytest
import torch

from benchmarks import gpu


def test_tiny_run_has_a_row_for_each_measurement(capsys):
    assert gpu.main(["--device", "cpu", "--tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and sum("bfloat16" in line for line in lines) == 3
    assert all(float(line.split("|")[2]) > 0 for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(capsys):
    assert gpu.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
