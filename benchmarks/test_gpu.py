"""gpu.py runs on whatever there is, and the loop over batches has nothing that stalls a card."""

import collections
import sys

import pytest
import torch

import emtc
from benchmarks import gpu
from emtc import EMTC

STALLS = (
    "item",
    "tolist",
    "cpu",
    "numpy",
    "nonzero",
    "__float__",
    "__int__",
    "__bool__",
    "__index__",
)


@pytest.mark.slow
def test_tiny_run_has_a_row_for_each_measurement(capsys):
    assert gpu.main(["--device", "cpu", "--tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and sum("bfloat16" in line for line in lines) == 1
    assert all(float(line.split("|")[2]) > 0 for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line(capsys):
    assert gpu.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


class Watched(EMTC):
    """Counts, from the start of the batches to their end, the calls that wait for the card.

    Adam's own count of its steps is left out: torch keeps it on the CPU.
    """

    def _begin(self, *given):
        super()._begin(*given)
        self.in_batches = True

    def _update(self, x, observed, losses):
        self.in_batches = False
        super()._update(x, observed, losses)
        self.in_batches = True

    def watch(self, patch):
        self.in_batches, self.calls = False, collections.Counter()
        for name in STALLS:
            patch.setattr(torch.Tensor, name, self.counted(name))
        return self

    def counted(self, name):
        call = getattr(torch.Tensor, name)

        def method(tensor, *args, **options):
            caller = sys._getframe(1).f_code.co_filename.replace("\\", "/")
            if self.in_batches and "/torch/optim/" not in caller:
                self.calls[name] += 1
            return call(tensor, *args, **options)

        return method


def few_series(missing):
    X = torch.randn(16, 24, 2, generator=torch.Generator().manual_seed(0))
    return X.index_fill(1, torch.tensor([3]), torch.nan) if missing else X


@pytest.mark.parametrize("options", [{}, {"mask": "none", "hide": 0.0}, {"as_printed": True}])
def test_no_batch_waits_for_the_card(monkeypatch, options):
    small = {"epochs": 2, "batch_size": 4, "n_starts": 1, "n_init": 2, "width": 8}
    model = Watched(2, **small, device="cpu", **options)
    model.watch(monkeypatch).fit(few_series(missing=False))
    assert len(model.history_) == 2 and not model.calls
    model.in_batches = False
    model.fit(few_series(missing=True))
    assert not model.calls


def test_the_count_sees_what_waits(monkeypatch):
    model = Watched(2, epochs=1, batch_size=4, n_starts=1, n_init=2, device="cpu")
    model.watch(monkeypatch)
    contrast = emtc.contrast
    monkeypatch.setattr(emtc, "contrast", lambda *L: contrast(*L) * float(contrast(*L).detach()))
    model.fit(few_series(missing=False))
    assert model.calls == {"__float__": 8}  # two versions in each of four batches
