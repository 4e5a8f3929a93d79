"""What is ours in the training: trials, first clusters, what teaches the mask, what is hidden."""

import numpy as np
import pytest
import torch

import emtc
from emtc import EMTC
from test_emtc import fitted, toy


def test_the_network_that_ends_its_trial_with_the_lowest_eq10_is_trained(monkeypatch):
    runs, real = [], EMTC._train

    def spy(self, x, observed, start, epochs, *more):
        end = real(self, x, observed, start, epochs, *more)
        runs.append((start, epochs, end, self.labels_))
        return end

    monkeypatch.setattr(EMTC, "_train", spy)
    for trial, epochs in ((2, 4), (2, 0), (3, 2)):
        runs.clear()
        model = fitted(n_starts=3, trial=trial, epochs=epochs)
        *trials, last = runs
        assert [r[:2] for r in trials] == [(s, min(trial, epochs)) for s in range(3)]
        assert len({r[2] for r in trials}) == 3
        assert last[:2] == (min(trials, key=lambda r: r[2])[0], epochs)
        assert len(model.history_) == epochs and np.array_equal(model.labels_, last[3])
        if epochs:
            assert model.history_[-1]["contrast"] == last[2]
    E, C = torch.from_numpy(model.embedding_), torch.from_numpy(model.labels_)
    L = [emtc.pair_sum(emtc.cosine(E, E), p, 0.1) for p in emtc.cluster_pairs(C, C, False)]
    assert last[2] == pytest.approx(float(emtc.contrast(*L)), rel=1e-4)
    runs.clear()
    fitted(n_starts=1)
    assert len(runs) == 1 and runs[0][0] == 0


def test_unclear_clusters_are_found_under_the_mask_that_a_trial_learned(monkeypatch):
    calls, real = [], EMTC._clusters

    def spy(self, x, observed, M, before=None):
        found = real(self, x, observed, M, before)
        calls.append((M, before, found, len(self.history_)))
        return found

    monkeypatch.setattr(EMTC, "_clusters", spy)
    monkeypatch.setattr(emtc, "HELD", 3)
    options = {"n_starts": 2, "trial": 2, "epochs": 3, "hide": 0.2, "epsilon": 0.15}
    options |= {"batch_size": 15}
    for unclear, mask in ((0.0, "evolving"), (9.0, "evolving"), (0.0, "none")):
        monkeypatch.setattr(emtc, "UNCLEAR", unclear)
        calls.clear()
        model = fitted(toy(30), **options, mask=mask)
        last = max(k for k, c in enumerate(calls) if c[1] is None and c[3] == 0 and c[0].all())
        begin = [c for c in calls[last:] if c[3] == 0][:3]
        if unclear or mask == "none":
            assert len([c for c in calls if c[1] is None]) == 3  # once for each start
            continue
        (_, _, whole, _), (M, no, masked, _), (all_of, before, kept, _) = begin
        net = emtc.Importance(3, 4, 1024, torch.Generator())
        net.load_state_dict(model._taught)
        x, observed = model._prepare(toy(30))
        assert torch.equal(M, net(x, observed) >= 0.5)
        assert no is None and masked[0] < whole[0] and torch.equal(before, masked[2])
        assert all_of.all() and torch.equal(kept[2], masked[2])
        for c in range(2):  # centres of these clusters among the whole series
            assert torch.allclose(kept[3][c], kept[1][masked[2] == c].mean(0), atol=1e-5)
        assert torch.equal(model._C, masked[2])  # three epochs later they are still the same
        longer = fitted(toy(30), **{**options, "epochs": emtc.HELD + 2, "patience": 50})
        assert longer.history_[emtc.HELD - 1]["label_change"] == 0
        assert [c for c in calls if c[3] == emtc.HELD]  # from here on they are found anew


def test_only_the_contrast_teaches_the_importance():
    """The version that is reconstructed sends no gradient to the mask; without it, that one does."""
    start = dict(fitted(epochs=0).net_.importance.named_parameters())
    for drop, hide, learns in (
        ((), 0.3, True),
        (("contra",), 0.3, False),
        (("contra",), 0.0, True),
    ):
        model = fitted(epochs=1, drop=drop, hide=hide)
        for name, w in model.net_.importance.named_parameters():
            assert torch.equal(w, start[name]) != learns, (name, drop, hide)
    assert fitted(epsilon=1, epochs=1).mask_.sum() == len(toy())


def test_how_much_is_hidden_follows_the_clusters():
    model = fitted(epochs=1, hide=0.4)
    x, observed = model._prepare(toy())
    model._hidden = 0.2
    E = model._E
    far = lambda x, observed, mask: E if mask.float().mean() > 0.67 else -E
    model._embed = far  # every sample is lost once more than a third is hidden
    assert model._bearable(x, observed) == pytest.approx(0.3, abs=0.051)
    model._embed = lambda *a: E
    assert model._bearable(x, observed) == 0.4
    model._embed = lambda *a: -E
    assert model._bearable(x, observed) == 0.05
    S = torch.full((50, 3, 20), 0.8)
    model._hidden = 0.5
    one, two = model._versions(S, 50)  # share x (2 - 2 S), and .4 of it
    assert float((~one).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((~two).float().mean()) == pytest.approx(0.08, abs=0.03)
    for settled, want in ((True, 0.22), (False, 0.18)):
        model = fitted(epochs=1)
        model._hidden, C = 0.2, model._C.clone()
        other = C if settled else (C + torch.arange(len(C)) % 2) % 2
        model._clusters = lambda *a, c=other, m=model: (0.0, E, c, m._centers)
        model._update(x, observed, torch.zeros(4))
        assert model._hidden == pytest.approx(want)
        assert model.history_[-1]["label_change"] == pytest.approx(0 if settled else 0.5)
