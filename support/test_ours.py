"""What is ours in the training: trials, first clusters, what teaches the mask, what is hidden."""

import copy
import itertools

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
        importance = copy.deepcopy(self.net_.importance.state_dict())
        runs.append((start, epochs, end, self.labels_, importance, more[2:]))
        return end

    monkeypatch.setattr(EMTC, "_train", spy)
    for trial, epochs in ((2, 4), (2, 0), (3, 2)):
        runs.clear()
        model = fitted(n_starts=3, trial=trial, epochs=epochs)
        *trials, last = runs
        assert [r[:2] for r in trials] == [(s, min(trial, epochs)) for s in range(3)]
        assert len({r[2] for r in trials}) == 3
        best = min(trials, key=lambda r: r[2])
        assert last[:2] == (best[0], epochs)
        for name, w in last[5][0].items():  # with the importance network that it learned there
            assert torch.equal(w, best[4][name])
        assert len(model.history_) == epochs and np.array_equal(model.labels_, last[3])
        if epochs:
            assert model.history_[-1]["contrast"] == last[2]
    E, C = torch.from_numpy(model.embedding_), torch.from_numpy(model.labels_)
    L = [emtc.pair_sum(emtc.cosine(E, E), p, 0.1) for p in emtc.cluster_pairs(C, C, False)]
    assert last[2] == pytest.approx(float(emtc.contrast(*L)), rel=1e-4)
    runs.clear()
    fitted(n_starts=1)
    assert len(runs) == 1 and runs[0][0] == 0
    networks = []
    for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1)):  # no two seeds share a network
        model = fitted(epochs=0, seed=seed)
        model._draw(number)
        networks.append(model.net_.importance.W1)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(networks, 2))


def test_the_first_mask_is_random_and_keeps_its_share():
    for keep in (0.3, 0.8):
        mask = fitted(toy(40), epochs=0, keep=keep).mask_
        assert mask.mean() == pytest.approx(keep, abs=0.03)


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
        assert torch.allclose(kept[1], whole[1], atol=1e-4)  # calibrated to all entries again
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


def test_how_much_is_hidden_follows_the_clusters(monkeypatch):
    model = fitted(epochs=1, hide=0.4)
    x, observed = model._prepare(toy())
    model._hidden = 0.2
    E = model._E
    far = lambda x, observed, mask: E if mask.float().mean() > 0.67 else -E
    model._embed = far  # every sample is lost once more than a third is hidden
    many = torch.ones(12, 3, 2000)
    assert model._bearable(many, many > 0) == pytest.approx(0.3)
    model._embed = lambda *a: E
    assert model._bearable(x, observed) == 0.4
    model._embed = lambda *a: -E
    assert model._bearable(x, observed) == 0.05
    S = torch.full((50, 3, 20), 0.8)
    model._hidden = 0.5
    one, two = model._versions(S, 50)  # share x (2 - 2 S), and .4 of it
    assert float((~one).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float((~two).float().mean()) == pytest.approx(0.08, abs=0.015)
    model._unclear = False  # share alone, wherever it is
    assert float((~model._versions(S, 50)[0]).float().mean()) == pytest.approx(0.5, abs=0.03)
    for settled, now, want in ((True, 0.2, 0.22), (False, 0.2, 0.18), (False, 0.05, 0.05)):
        model = fitted(epochs=1)
        model._hidden, C = now, model._C.clone()
        other = C if settled else (C + torch.arange(len(C)) % 2) % 2
        model._clusters = lambda *a, c=other, m=model: (0.0, E, c, m._centers)
        model._update(x, observed, torch.zeros(4))
        assert model._hidden == pytest.approx(want)
        assert model.history_[-1]["label_change"] == pytest.approx(0 if settled else 0.5)
    monkeypatch.setattr(EMTC, "_bearable", lambda *a: 0.2)
    (record,) = fitted(epochs=1, hide=0.4).history_
    want = 0.22 if record["label_change"] <= 0.01 else 0.18
    assert record["hidden"] == pytest.approx(want)


def test_of_many_samples_some_stand_for_all(monkeypatch):
    """With more than SAMPLES of them, so many calibrate, stand against an anchor, make Eq. 10."""
    seen, given, real, calibrate = [], [], emtc.cosine, emtc.Network.calibrate
    spies = (
        (emtc, "SAMPLES", 8),
        (emtc, "cosine", lambda E, anchors: seen.append(E) or real(E, anchors)),
        (emtc.Network, "calibrate", lambda net, x, o: given.append(x) or calibrate(net, x, o)),
    )
    for home, name, spy in spies:
        monkeypatch.setattr(home, name, spy)
    model = fitted(toy(30), epochs=1)
    assert torch.equal(given[0], model._prepare(toy(30))[0][::4])
    assert {len(E) for E in seen if E.requires_grad} == {8}  # batches have 5
    assert torch.equal(seen[-1], model._E[::4])
