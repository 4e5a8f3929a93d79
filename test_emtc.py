"""Tests of the core: `pytest test_emtc.py`. No network, no GPU, nothing beyond requirements.txt.

Oracles are independent: values by hand, loops for each vectorised equation, gradcheck, scipy and scikit-learn
where they are installed. The related methods, the experiments and the benchmarks have tests of their own.
"""

import copy
import inspect
import itertools
import json
import math
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import emtc
import metrics
import train
import uea_loader
import uea_text
from emtc import EMTC
from kmeans import kmeans
from metrics import accuracy
from uea_loader import DataError, load

ROOT = Path(__file__).parent

# ------------------------------------------------------------------ emtc.py

def toy(N=12, T=20, D=2, seed=0):
    """Two classes of noisy sines, fast and slow: X (N, T, D) float32."""
    rng = np.random.default_rng(seed)
    t, phase = np.arange(T), rng.uniform(0, 6, (N, 1, D))
    speed = np.where(np.arange(N) % 2, 0.3, 1.2)[:, None, None]
    return (np.sin(speed * t[:, None] + phase) + 0.1 * rng.normal(size=(N, T, D))).astype("f4")


def fitted(X=None, **options):
    return EMTC(2, **{"epochs": 3, "width": 8, "batch_size": 5, **options}).fit(toy() if X is None else X)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net_.parameters()])


def test_every_equation_has_its_tag():
    source = (ROOT / "emtc.py").read_text()
    for n in range(1, 14):
        assert f"Eq. ({n})" in source, f"no line of emtc.py is tagged Eq. ({n})"


def test_eq1_each_variate_is_encoded_alone():
    torch.manual_seed(0)
    net, x = emtc.Importance(3), torch.randn(2, 3, 15)
    seen = torch.ones_like(x, dtype=torch.bool)
    other = x.clone()
    other[:, 1] += torch.randn(2, 15)
    a, b = net(x, seen), net(other, seen)
    assert torch.equal(a[:, [0, 2]], b[:, [0, 2]]) and not torch.allclose(a[:, 1], b[:, 1])


@pytest.mark.parametrize("max_keys, step", [(None, 1), (7, 1), (3, 3)])
def test_eq2_attention_by_loops(max_keys, step):
    torch.manual_seed(1)
    net, (B, D, T), h = emtc.Importance(2, max_keys=max_keys).double(), (2, 2, 7), 4
    x = torch.randn(B, D, T).double()
    seen = torch.rand(B, D, T) > 0.3
    seen[0] = True
    x = x * seen
    S = net(x, seen)
    Z = torch.relu(net.f1(x)) * seen.repeat_interleave(h, 1)
    Z = net.f2(Z).view(B, D, h, T)
    for b, d in itertools.product(range(B), range(D)):
        z, keys = Z[b, d].T, [t for t in range(0, T, step) if seen[b, d, t]]
        score = []
        for t in range(T):
            a = torch.stack([net.Q(z[t]) @ net.K(z[u]) / h ** 0.5 for u in keys]).exp()
            score.append(sum(w * net.s(z[u]) for w, u in zip(a / a.sum(), keys)))
        score = torch.stack(score)[:, 0]
        own = score[seen[b, d]]
        want = torch.sigmoid((own - own.mean()) / own.std(correction=0))
        assert torch.allclose(S[b, d, seen[b, d]], want, atol=1e-4)


def test_importance_is_more_than_rounding():
    """S is standardised over t, which would also blow up the rounding of a score that hardly varies."""
    torch.manual_seed(0)
    net, x = emtc.Importance(4), torch.randn(8, 4, 50)
    seen = torch.ones_like(x, dtype=torch.bool)
    assert torch.allclose(net(x, seen), copy.deepcopy(net).double()(x.double(), seen).float(), atol=1e-3)


def test_eq3_threshold_is_variate_wise_and_never_masks_a_series_away():
    S = torch.tensor([[[0.1, 0.5, 0.9], [0.2, 0.1, 0.15]]])
    seen = torch.tensor([[[True, True, False], [True, True, True]]])
    assert emtc.threshold(S, seen, 0.5).tolist() == [[[False, True, False], [True, False, False]]]
    assert torch.equal(emtc.threshold(S, seen, 0.0), seen)
    assert emtc.threshold(S, seen, 1.0).sum(2).tolist() == [[1, 1]]
    assert not emtc.threshold(S, torch.zeros_like(seen), 0.0).any()


def test_numpys_numbers_are_options_and_predict_needs_a_fit(tmp_path):
    model = EMTC(np.int64(2), epsilon=np.float32(0.25), epochs=np.int32(1), width=8, tau=1).fit(toy())
    assert type(model.n_clusters) is int and model.epsilon == 0.25
    model.save(tmp_path / "m.pt")
    assert np.array_equal(EMTC.load(tmp_path / "m.pt").predict(toy()), model.predict(toy()))
    for use in (EMTC(2).predict, EMTC(2).transform):
        with pytest.raises(ValueError, match="not fitted"):
            use(toy())
    for bad in (dict(epochs=1.5), dict(lr=math.nan), dict(tau=0), dict(max_keys=0), dict(mask="mine")):
        with pytest.raises(ValueError, match=next(iter(bad))):
            EMTC(2, **bad)


def test_training_ends_once_the_labels_have_settled():
    def after(changes, patience=3):
        model = EMTC(2, patience=patience)
        model.history_ = [{"label_change": c} for c in changes]
        return model._converged()
    assert after([.5, .01, 0, .01]) and not after([0, .011, 0]) and not after([0, 0]) and after([0], patience=1)
    model = fitted(toy(N=30), epochs=200, patience=4)
    changes = [r["label_change"] for r in model.history_]
    assert len(changes) < 200 and max(changes[-4:]) <= .01 and not (len(changes) > 4 and max(changes[-5:-1]) <= .01)


def test_mask_is_hard_forward_and_soft_backward():
    M, S = torch.rand(2, 3, 4) > 0.5, torch.rand(2, 3, 4, requires_grad=True)
    keep = emtc.straight_through(M, S)
    assert torch.equal(keep, M.float())
    (keep * torch.arange(24.0).view(2, 3, 4)).sum().backward()
    assert torch.equal(S.grad, torch.arange(24.0).view(2, 3, 4))


def test_first_clusters_are_of_the_series_as_observed_the_first_mask_is_random():
    model = EMTC(2, epochs=0, width=8, keep=0.5)
    x, seen = model._prepare(toy(), fitting=True)
    model._begin(x, seen)
    assert torch.equal(model._bank, model._embed(x, seen, seen)) and 0.4 < model._M.float().mean() < 0.6
    assert torch.equal(model._M, emtc.static_mask("random", x, seen, 0.5, seed=0))


def test_an_epoch_uses_the_mask_of_the_epoch_before(monkeypatch):
    used, after = [], []
    original = emtc.straight_through
    monkeypatch.setattr(emtc, "straight_through", lambda M, S: used.append(M) or original(M, S))
    model = EMTC(2, epochs=4, width=8, batch_size=99, epsilon=0.45)
    model.fit(toy(), on_epoch=lambda m, r: after.append((m.mask_, m.importance_, m._M)))
    for (mask, importance, M), now in zip(after, used[1:]):
        assert torch.equal(now.sum(), M.sum()) and now.dtype == torch.bool
        assert np.array_equal(mask, importance >= 0.45) and 0.1 < mask.mean() < 0.95
    assert not np.array_equal(after[0][0], after[-1][0]), "the mask never evolved"
    assert not np.array_equal(after[0][0][..., 0], after[0][0][..., 1]), "one mask for all variates"


def test_every_parameter_gets_a_gradient_from_the_total_loss():
    model = fitted(batch_size=99, tau=0.5)
    for name, p in model.net_.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, f"no gradient reaches {name}"


def test_encoder_dilates_and_every_second_kernel_ignores_the_level():
    f = emtc.Encoder(2, 100, 8, 5)
    f.initialise(torch.randn(4, 2, 100), torch.Generator().manual_seed(0))
    assert [c.dilation[0] for c in f.bank] == [1, 2, 4, 8, 16] and f.mix.weight.abs().max() == 0
    x = torch.randn(3, 2, 200)
    move = (f(x + 7) - f(x))[:, :, 40:-40].abs().amax((0, 2))
    odd = torch.cat([torch.arange(c.out_channels) % 2 for c in f.bank]).bool()
    assert move[odd].max() < 1e-3 < 0.1 < move[~odd].min()


def test_eqs5_to_7_by_loops():
    g = torch.Generator().manual_seed(0)
    X, X_v = torch.randn(6, 2, generator=g), torch.randn(3, 6, 2, generator=g)
    seen = torch.rand(6, 2, generator=g) > 0.3
    want = sum(sum((X[n, d] - X_v[v, n, d]) ** 2 for n in range(6) for d in range(2) if seen[n, d])
               for v in range(3)) / seen.sum()
    assert torch.isclose(emtc.intra_loss(X, X_v, seen), want)
    a, b = torch.randn(2, 6, 4, generator=g), torch.randn(2, 6, 4, generator=g)
    want = sum((a[p, n, c] - b[p, n, c]) ** 2 / 24
               for p in range(2) for n in range(6) for c in range(4))
    assert torch.isclose(emtc.inter_loss(a, b), want)


def test_eqs10_to_12_by_loops():
    g = torch.Generator().manual_seed(2)
    E, C = torch.randn(7, 3, generator=g).double(), torch.tensor([0, 0, 1, 1, 1, 2, 0])
    i, tau, terms = torch.tensor([0, 2, 5, 6]), 0.4, []
    for a in i.tolist():
        e = [math.exp(float(E[a] @ E[b] / E[a].norm() / E[b].norm()) / tau) for b in range(7)]
        plus = sum(e[b] for b in range(7) if b != a and C[b] == C[a])
        minus = sum(e[b] for b in range(7) if C[b] != C[a])
        if plus:  # sample 5 is alone in its cluster
            terms.append(-math.log(plus / (plus + minus)))
    assert len(terms) == 3
    assert float(emtc.contrastive_loss(E, C, i, tau)) == pytest.approx(sum(terms) / 3)
    assert emtc.contrastive_loss(E, C, i, 1e-4).isfinite()
    assert float(emtc.contrastive_loss(E, torch.arange(7), i, tau)) == 0


def test_gradcheck_of_each_loss():
    g = torch.Generator().manual_seed(3)
    r = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True)
    C, i = torch.tensor([0, 0, 1, 1, 0]), torch.arange(5)
    seen = torch.rand(4, 2, generator=g) > 0.2
    assert torch.autograd.gradcheck(lambda E: emtc.contrastive_loss(E, C, i, 0.5), r(5, 3))
    assert torch.autograd.gradcheck(lambda X, Y: emtc.intra_loss(X, Y, seen), (r(4, 2), r(2, 4, 2)))
    assert torch.autograd.gradcheck(emtc.inter_loss, (r(2, 4, 3), r(2, 4, 3)))
    t = torch.ones(2, 5, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda F_v: emtc.fuse(F_v, t), r(2, 2, 3, 5))


def test_eq8_pooling_by_hand():
    F_v = torch.tensor([[[[0.0, 10.0, -10.0, 99.0]]], [[[0.0, 0.0, 4.0, 99.0]]]])  # (2, 1, 1, 4)
    seen = torch.tensor([[True, True, True, False]])
    share = [(0 + 1 - 1) / 3, 1 / 3]
    assert torch.allclose(emtc.fuse(F_v, seen), torch.tensor([[sum(share) / 2, (10 + 4) / 2]]))


def test_whitening_against_numpy():
    A = np.random.default_rng(0).normal(size=(40, 24)) @ np.diag(np.linspace(1, 9, 24))
    mean, W = emtc.whitening(torch.tensor(A))
    E = ((torch.tensor(A) - mean) @ W).numpy()
    s = np.linalg.svd((A - A.mean(0)) / A.std(0), compute_uv=False)[:emtc.RANK]
    gram = E.T @ E
    assert np.allclose(np.diag(gram) ** 0.5, s * (s / s[0]) ** -emtc.POWER)
    assert np.allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-9)


def test_one_seed_repeats_bit_for_bit_and_leaves_the_callers_rng_alone():
    X = toy()
    before, numpy_before, copy = torch.get_rng_state(), np.random.get_state()[1].copy(), X.copy()
    a, b, c = fitted(X), fitted(torch.tensor(X)), fitted(X, seed=1)
    assert torch.equal(weights(a), weights(b)) and np.array_equal(a.labels_, b.labels_)
    assert a.history_ == b.history_ and not torch.equal(weights(a), weights(c))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before) and np.array_equal(X, copy)


def test_looking_at_the_model_every_epoch_changes_nothing():
    look = lambda m, r: (m.predict(toy(5)), m.transform(toy()), m.labels_, m.mask_, m.embedding_)
    watched = EMTC(2, epochs=3, width=8, batch_size=5).fit(toy(), on_epoch=look)
    assert torch.equal(weights(watched), weights(fitted()))


def test_fit_takes_no_labels():
    for name in ("fit", "fit_predict", "transform", "predict"):
        assert "y" not in inspect.signature(getattr(EMTC, name)).parameters


def test_outputs_agree_with_each_other(tmp_path):
    X = toy()
    model = fitted(X)
    assert model.mask_.shape == model.importance_.shape == X.shape and model.mask_.dtype == bool
    assert np.allclose(model.transform(X), model.embedding_, atol=1e-5)
    assert np.array_equal(model.predict(X), model.labels_)
    assert np.allclose(np.linalg.norm(model.embedding_, axis=1), 1, atol=1e-5)
    assert model.cluster_centers_.shape == (2, model.embedding_.shape[1])
    record = model.history_[-1]
    want = record["contra"] + model.alpha * record["intra"] + model.beta * record["inter"]
    assert record["total"] == pytest.approx(want, rel=1e-4) and record["epoch"] == 3  # Eq. (13)
    model.save(tmp_path / "m.pt")
    again = EMTC.load(tmp_path / "m.pt")
    assert np.array_equal(again.transform(toy(5, 31)), model.transform(toy(5, 31)))
    assert np.array_equal(again.labels_, model.labels_) and again.history_ == model.history_
    (tmp_path / "bad.pt").write_bytes((tmp_path / "m.pt").read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a model saved by"):
        EMTC.load(tmp_path / "bad.pt")


def test_resume_is_bit_equal():
    saved = []
    whole = EMTC(2, epochs=6, width=8, batch_size=5).fit(
        toy(), on_epoch=lambda m, r: saved.append(copy.deepcopy(m.checkpoint())))
    half = EMTC(2, epochs=6, width=8, batch_size=5).fit(toy(), resume=saved[2])
    assert torch.equal(weights(whole), weights(half)) and whole.history_ == half.history_
    assert np.array_equal(whole.labels_, half.labels_) and np.array_equal(whole.mask_, half.mask_)


def test_missing_values_and_padding_do_not_count():
    X = toy()
    long = np.concatenate([X, np.full((12, 9, 2), np.nan, "f4")], 1)
    a, b = fitted(X), fitted(long)
    assert np.array_equal(a.labels_, b.labels_) and torch.equal(weights(a), weights(b))
    assert b.mask_.shape == long.shape and not b.mask_[:, 20:].any()
    X[::2, 14:] = np.nan                     # unequal lengths
    X[1, 3:6, 0] = X[:, 0, 1] = np.nan       # and holes
    model = fitted(X, epsilon=0.0)
    assert np.array_equal(model.mask_, ~np.isnan(X)) and not model.importance_[np.isnan(X)].any()
    assert np.isfinite([list(r.values()) for r in model.history_]).all()
    pad = np.concatenate([X, np.full((12, 5, 2), np.nan, "f4")], 1)
    assert np.allclose(model.transform(pad), model.transform(X), atol=1e-6)


@pytest.mark.parametrize("kind", ["random", "uniform", "variance", "frequency", "none"])
def test_static_masks_keep_their_share(kind):
    X = toy(20, 50, 3)
    model = fitted(X, mask=kind, keep=0.7, epochs=1)
    share = model.mask_.mean((0, 1))
    assert np.allclose(share, 1 if kind == "none" else 0.7, atol=0.06)
    assert model.history_[-1]["kept"] == pytest.approx(model.mask_.mean(), abs=1e-6)


@pytest.mark.parametrize("part", emtc.PARTS)
def test_each_part_can_be_dropped(part):
    model = fitted(drop=(part,))
    zero = {"mev": "inter"}.get(part, part)
    last = model.history_[-1]
    assert (last.get(zero, 0) == 0) and len(model.net_.encoders) == (1 if part == "mev" else 2)
    assert bool(model.mask_.all()) == (part == "ivm") and last["total"] > 0


@pytest.mark.parametrize("options, X, word", [
    ({"n_clusters": 13}, toy(), "more than the 12"), ({"epsilon": 2}, toy(), "epsilon"),
    ({"mask": "x"}, toy(), "mask"), ({"drop": ("x",)}, toy(), "drop"), ({"epochs": -1}, toy(), "epochs"),
    ({"drop": ("intra", "inter", "contra")}, toy(), "no loss"), ({"tau": 0}, toy(), "tau"),
    ({}, toy()[0], "N, T, D"), ({}, toy() * np.inf, "infinite"), ({}, toy() * np.nan, "without any")])
def test_errors_are_one_line(options, X, word):
    with pytest.raises(ValueError, match=word) as error:
        EMTC(**{"n_clusters": 2, "epochs": 1, **options}).fit(X)
    assert "\n" not in str(error.value)


def test_blown_up_loss_names_epoch_and_term():
    with pytest.raises(FloatingPointError, match=r"epoch \d+: loss term"):
        fitted(lr=1e8, epochs=50)

# ------------------------------------------------------------------ kmeans.py

def blobs(n=200, d=5, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(n, d)) + 4 * rng.normal(size=(k, d))[np.arange(n) % k], dtype=torch.float32)


def brute_inertia(X, labels, centers):
    return sum(float(((x - centers[c]) ** 2).sum()) for x, c in zip(X.double(), labels))


def test_kmeans_by_hand():
    X = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0]])
    found = kmeans(X, 2, seed=0)
    assert sorted(found.centers.flatten().tolist()) == [0.5, 11.0] and found.inertia == pytest.approx(2.5)
    assert len(set(found.labels[:2].tolist())) == len(set(found.labels[2:].tolist())) == 1


def test_kmeans_labels_centers_and_inertia_agree():
    X = blobs()
    before = X.clone()
    found = kmeans(X, 6, n_init=3, seed=1)
    assert torch.equal(torch.cdist(X, found.centers).argmin(1), found.labels) and torch.equal(X, before)
    assert found.inertia == pytest.approx(brute_inertia(X, found.labels, found.centers.double()), rel=1e-5)


def test_kmeans_inertia_never_rises():
    X, start = blobs(300, 3, 9), blobs(300, 3, 9)[:9] * 0 + torch.arange(9.0)[:, None] / 50
    path = [kmeans(X, 9, init=start, max_iter=m, tol=0).inertia for m in range(1, 15)]
    assert all(b <= a * (1 + 1e-6) for a, b in zip(path, path[1:])) and path[-1] < path[0]


def test_kmeans_returns_the_best_restart():
    X, rng = blobs(120, 2, 12, seed=3), torch.Generator().manual_seed(5)
    many = kmeans(X, 12, n_init=12, seed=rng)
    single = [kmeans(X, 12, n_init=1, seed=s).inertia for s in range(12)]
    assert len({round(v, 2) for v in single}) > 1 and many.inertia <= sorted(single)[6]
    start = kmeans(X, 12, n_init=20, seed=0)
    assert kmeans(X, 12, init=start.centers).inertia <= start.inertia * (1 + 1e-6)


def test_kmeans_refills_empty_clusters_and_survives_duplicates():
    X = blobs()
    found = kmeans(X, 4, init=torch.cat([X[:1], torch.full((3, 5), 1e3)]))
    assert len(found.labels.unique()) == 4 and found.centers.isfinite().all()
    same = kmeans(torch.ones(6, 2), 3)
    assert same.inertia == 0 and (same.centers == 1).all()


def test_kmeans_far_from_the_origin_and_repeatable():
    X = blobs().double()
    near, far = kmeans(X.float(), 4, seed=2), kmeans((X + 3e4).float(), 4, seed=2)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)
    assert torch.equal(kmeans(X, 4, seed=2).labels, kmeans(X, 4, seed=2).labels)


@pytest.mark.parametrize("X, k", [(torch.ones(3, 2), 4), (torch.full((3, 2), math.nan), 2), (torch.ones(3), 1)])
def test_kmeans_errors(X, k):
    with pytest.raises(ValueError):
        kmeans(X, k)


def test_kmeans_against_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    X = blobs(500, 8, 10)
    theirs = cluster.KMeans(10, n_init=10, random_state=0).fit(X.numpy()).inertia_
    assert kmeans(X, 10, seed=0).inertia <= theirs * 1.001


# ------------------------------------------------------------------ metrics.py

def brute_match(table):
    """The largest number of samples that a one-to-one match can agree on, by trying all matches."""
    table = np.asarray(table)
    table = table if table.shape[0] <= table.shape[1] else table.T
    return max(sum(table[i, j] for i, j in enumerate(p))
               for p in itertools.permutations(range(table.shape[1]), table.shape[0]))


def test_metrics_by_hand():
    y, c = ["a", "a", "a", "b", "b"], [1, 1, 0, 0, 0]
    got = metrics.scores(y, c)
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    mutual = 0.4 * math.log(0.4 / 0.24) + 0.2 * math.log(0.2 / 0.36) + 0.4 * math.log(0.4 / 0.24)
    assert got["ACC"] == pytest.approx(0.8) and got["F1"] == pytest.approx(0.8)
    assert got["NMI"] == pytest.approx(mutual / entropy) and got["ARI"] == pytest.approx((2 - 1.6) / (4 - 1.6))
    assert all(type(v) is float for v in got.values())
    # one cluster for two classes: the class without a cluster counts 0 in F1
    assert metrics.f1([0, 0, 1, 1], [0, 0, 0, 0]) == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("seed", range(12))
def test_accuracy_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    classes, clusters, n = rng.integers(1, 7), rng.integers(1, 7), rng.integers(1, 60)
    y, c = rng.integers(0, classes, n), rng.integers(0, clusters, n)
    table = [[np.sum((y == a) & (c == b)) for b in range(clusters)] for a in range(classes)]
    assert metrics.accuracy(y, c) == pytest.approx(brute_match(table) / n)
    assert metrics.accuracy(y, c) == pytest.approx(metrics.accuracy(torch.tensor(y), list(c)))


def test_a_greedy_match_is_not_enough():
    y, c = [0] * 9 + [1] * 5, [0] * 5 + [1] * 4 + [0] * 5  # table [[5, 4], [5, 0]]
    assert metrics.accuracy(y, c) == pytest.approx(9 / 14)


@pytest.mark.parametrize("y, c, want", [([0], [7], (1, 1, 1, 1)), ([0, 1, 2], [2, 0, 1], (1, 1, 1, 1)),
                                        ([0, 0, 0], [1, 1, 1], (1, 1, 1, 1))])
def test_metrics_at_the_edges(y, c, want):
    assert tuple(metrics.scores(y, c).values()) == pytest.approx(want)


def test_metrics_against_scikit_learn_at_full_size():
    theirs = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 12, 100_000)
    c = np.where(rng.random(100_000) < 0.6, (y * 5) % 12, rng.integers(0, 9, 100_000))
    assert metrics.nmi(y, c) == pytest.approx(theirs.normalized_mutual_info_score(y, c), abs=1e-9)
    assert metrics.ari(y, c) == pytest.approx(theirs.adjusted_rand_score(y, c), abs=1e-9)
    best = pytest.importorskip("scipy.optimize").linear_sum_assignment
    table = theirs.cluster.contingency_matrix(y, c)
    rows, columns = best(-table)
    assert metrics.accuracy(y, c) == pytest.approx(table[rows, columns].sum() / len(y))


@pytest.mark.parametrize("y, c", [([], []), ([1, 2], [1])])
def test_metrics_errors(y, c):
    with pytest.raises(ValueError):
        metrics.scores(y, c)


# ------------------------------------------------------------------ uea_loader.py: files by hand, values by float()

TS = "@problemName t\n@timeStamps false\n@univariate false\n@classLabel true b a\n@data\n"
ARFF = ("@relation t\n@attribute bag relational\n@attribute t0 numeric\n@end bag\n"
        "@attribute class {'b, one',a}\n@data\n")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMTC_DATA", str(tmp_path / "cache"))


def read(tmp_path, text, name="x.ts", **kw):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(tmp_path / name, **kw)


def test_bundled_data_and_its_ts_twin(tmp_path):
    """.arff against a reader of three lines; .ts written from the same numbers gives equal X, y and classes."""
    d = load("BasicMotions", "train")
    file = Path(uea_loader.__file__).parent / "data" / "BasicMotions" / "BasicMotions_TRAIN.arff"
    rows = [re.match("'(.*)',(.*)", line).groups() for line in file.read_text().split("@data\n")[1].splitlines()]
    want = np.array([[[float(v) for v in c.split(",")] for c in bag.split("\\n")] for bag, _ in rows])
    assert d.X.dtype == np.float32 and d.X.shape == (40, 100, 6) and d.y.dtype == np.int64
    assert np.array_equal(d.X, want.astype(np.float32).transpose(0, 2, 1))
    assert d.classes == ["Standing", "Running", "Walking", "Badminton"]   # the header's order, not the alphabet's
    assert [d.classes[i] for i in d.y] == [label for _, label in rows]
    ts = TS.replace("b a", " ".join(d.classes)) + "\n".join(b.replace("\\n", ":") + ":" + c for b, c in rows)
    twin = read(tmp_path, ts)
    assert np.array_equal(twin.X, d.X) and np.array_equal(twin.y, d.y) and twin.classes == d.classes
    both = load("BasicMotions", "all")
    assert both.X.shape == (80, 100, 6) and np.array_equal(both.X[:40], d.X) and both.name == "BasicMotions"


def test_numbers_are_bit_equal_to_float():
    """Seeded fields of every style, against Python's float rounded once to float32."""
    rng = random.Random(0)
    styles = "%.6f %.2f %r %.18e %g %.0f %.12f -.%d +%.3f -%.5f %d.".split()
    fields = [s % (rng.randint(0, 9**9) if "d" in s else abs(rng.gauss(0, 10 ** rng.randint(-9, 9))))
              for s in styles for _ in range(400)]
    fields += ["16777217", "33554434.9999999999", "0.30000001192092896", "1e-45", "-0.0", "00012.50", "1e-60"]
    rng.shuffle(fields)
    near = [np.float32(rng.uniform(1, 999)) for _ in range(400)]   # ties: half way between two float32
    ties = [[f"{(float(f) + float(np.nextafter(f, np.float32(9999)))) / 2:.{n}g}" for f in near] for n in (16, 17, 21)]
    for fields in (fields, [f for f in fields if "e" not in f], *ties):
        x, after = uea_text._numbers(b"0" * 31 + b"\n" + ",".join(fields).encode() + b"\n")
        assert np.array_equal(x.view(np.uint32), np.array([float(f) for f in fields], np.float32).view(np.uint32))
        assert bytes(after) == b"," * (len(fields) - 1) + b"\n"


@pytest.mark.parametrize("field", ["1.2.3", "1-2", "--1", "1e", "e5", "1e2e3", "1e2.5", ".", "-", "1_0", "0x1", "1 2",
                                   "a", "inf", "1e39", "-infinity", "1/2", "12345678.1234567.8", "1;2", "1.2,3\\n4",
                                   "1\xba2", "12345.1234567.8"])
def test_what_is_no_finite_number_is_refused_with_file_and_line(tmp_path, field):
    for around in ("", ",12.3456789012345" * 99, ",1.5e-03" * 99):   # read one by one, all at once, with exponents
        with pytest.raises(DataError, match=r"x\.ts(:8)?: ") as e:
            read(tmp_path, TS + "1,2:3,4:a\n\n" + f"1,{field}{around}:3,4:a\n")
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("text, X, y, classes", [
    ("\ufeff" + TS + "1,?,3:4,,6:a\r\n\r\n# note\r\n nan,NaN , 3 :\t1e1,-.5,+2E+0:b\r\n",
     [[[1, 4], [None, None], [3, 6]], [[None, 10], [None, -.5], [3, 2]]], [1, 0], ["b", "a"]),
    (TS + "1,2,3:4,5,6:b\n7:8:a\n", [[[1, 4], [2, 5], [3, 6]], [[7, 8], [None] * 2, [None] * 2]], [0, 1], ["b", "a"]),
    (TS.replace("true b a", "false") + "1,2\n3,4\n", [[[1], [2]], [[3], [4]]], None, []),
    (TS.replace("true b a", "true") + "1,2:10\n3,4:9\n", [[[1], [2]], [[3], [4]]], [1, 0], ["9", "10"]),
    (ARFF + "'1,2\\n3,4\\n','b, one'\n% note\n\"5,?\\n7,8\",a\n",
     [[[1, 3], [2, 4]], [[5, 7], [None, 8]]], [0, 1], ["b, one", "a"]),
    ("@RELATION u\n@Attribute t0 REAL\n@attribute t1\tinteger\n@attribute k {1,'x\\'s, y'}\n@DATA\n"
     "1,2,1\n3,?,'x\\'s, y'\n", [[[1], [2]], [[3], [None]]], [0, 1], ["1", "x's, y"]),
])
def test_forms(tmp_path, text, X, y, classes):
    d = read(tmp_path, text)
    assert np.array_equal(d.X, np.array(X, np.float32), equal_nan=True)
    assert (d.y if y is None else d.y.tolist()) == y and d.classes == classes


@pytest.mark.parametrize("text, words", [
    (TS.replace("Stamps false", "Stamps true") + "1:a\n", "timestamps"), (TS + "1:c\n", "x.ts:6: label 'c'"),
    (TS.replace("@classL", "@targetL") + "1:2\n", "x.ts:4: "), (TS, "no record"), ("1,2:a\n", "no @data"),
    (TS + "1,2:3,4:a\n1,2:a\n", "x.ts:7: 1 variates, but 2"), (TS + "?,?:a\n", "missing"),
    (TS + "1:a\n2:?\n", "x.ts:7: "), (TS + "1:a\n" * 3000 + ",".join("1" * 9000) + ":a\n", "padding"),
    ((TS + "1:a\n").encode("utf-16"), "NUL"), (ARFF + "1,2,a\n", "quoted series"), (ARFF + "'1,2'\n", "class label"), (TS + ":a\n", "no values"),
    (ARFF + "'1:2\\n3,4',a\n", "':' among"), ("@attribute t numeric\n@attribute k {a}\n@data\n1:2,a\n", "':' among"),
    (TS.replace("@univ", "@unver") + "1:a\n", "x.ts:3: "),
])
def test_bad_files_are_one_line(tmp_path, text, words):
    with pytest.raises(DataError) as e:
        read(tmp_path, text)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_one_label_map_for_both_splits_and_names(tmp_path):
    folder = tmp_path / "my" / "Mine"
    folder.mkdir(parents=True)
    head = TS.replace("true b a", "true")
    (folder / "Mine_TRAIN.ts").write_text(head + "1,2:z\n1:k\n")
    (folder / "Mine_TEST.ts").write_text(head + "5:z\n6:z\n")
    for given, kw in ((folder, {}), ("Mine", dict(data_dir=tmp_path / "my")), ("Mine", dict(data_dir=folder))):
        d = load(given, "test", **kw)
        assert (d.classes, d.y.tolist(), d.X.shape, d.name) == (["k", "z"], [1, 1], (2, 1, 1), "Mine")
    d = load(folder, "all")
    assert d.y.tolist() == [1, 0, 1, 1] and np.isnan(d.X[1:, 1]).all() and d.X.shape == (4, 2, 1)
    for given, words in (("BasicMotion", "BasicMotions"), ("../Mine", "no such file"), ("a/b", "no such"),
                         ("..", "holds"), (tmp_path / "no.ts", "no such"), (tmp_path, "holds"), ("Epilepsy", "by hand")):
        with pytest.raises(DataError, match=words):
            load(given, download=False)
    with pytest.raises(DataError, match="split"):
        load(folder, "both")


# ------------------------------------------------------------------ train.py

def run_train(folder, *options):
    """train.py on the real BasicMotions, quietly; returns (results, labels.csv as rows)."""
    assert train.main(["--quiet", "--out", str(folder), *options]) == 0
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    return json.loads((folder / "results.json").read_text()), rows


def test_train_as_a_user_runs_it(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), "--data", "BasicMotions", "--epochs", "2",
                           "--oracle"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    folder = tmp_path / "runs" / "BasicMotions"
    found = json.loads((folder / "results.json").read_text())
    assert (found["data"], found["split"], found["shape"], found["n_clusters"]) == ("BasicMotions", "test", [40, 100, 6], 4)
    assert found["seeds"] == [r["seed"] for r in found["per_seed"]] == [0, 1, 2]
    for metric in ("ACC", "F1", "NMI", "ARI"):  # statistics, not torch or numpy
        values = [r[metric] for r in found["per_seed"]]
        assert found["final"][metric]["mean"] == pytest.approx(statistics.mean(values))
        assert found["final"][metric]["std"] == pytest.approx(statistics.pstdev(values))
        assert {"raw_kmeans", "untrained"} == set(found["baselines"]) and metric in found["baselines"]["untrained"]
    assert found["paper"]["ACC"] == {"mean": .9083, "std": .0656} and found["paper"]["F1"]["mean"] == .9057
    assert found["oracle"]["ACC"]["mean"] >= found["final"]["ACC"]["mean"] and "labels" in found["oracle"]["note"]
    assert {"agreement", "label_change", "data_hash", "versions"} <= found.keys() and len(found["data_hash"]) == 64
    assert len((folder / "log.jsonl").read_text().splitlines()) == 6
    with np.load(folder / "seed_2.npz") as file:
        assert file["importance"].shape == file["mask"].shape == (40, 100, 6) and len(file["embedding"]) == 40
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    data = load("BasicMotions")
    assert rows[0] == ["sample", "class", "seed_0", "seed_1", "seed_2"]
    assert [r[1] for r in rows[1:]] == [data.classes[c] for c in data.y]
    assert accuracy(data.y, [r[4] for r in rows[1:]]) == found["per_seed"][2]["ACC"]  # the last epoch's


def test_labels_and_looking_at_them_change_no_training(tmp_path):
    data = load("BasicMotions")
    np.savez(tmp_path / "shuffled.npz", X=data.X, y=np.random.default_rng(0).permutation(data.y))
    np.savez(tmp_path / "bare.npz", X=data.X)
    options = ["--seeds", "0", "--epochs", "2"]
    _, plain = run_train(tmp_path / "a", *options)
    _, oracle = run_train(tmp_path / "b", *options, "--oracle")
    scored, shuffled = run_train(tmp_path / "c", *options, "--oracle", "--data", str(tmp_path / "shuffled.npz"))
    bare, unlabelled = run_train(tmp_path / "d", *options, "--data", str(tmp_path / "bare.npz"), "--clusters", "4")
    for rows in (oracle, shuffled, unlabelled):
        assert [r[2] for r in rows] == [r[2] for r in plain]
    weights = [torch.load(tmp_path / f / "model_seed0.pt", weights_only=True)["state"]["net"] for f in "abcd"]
    assert all(torch.equal(w[k], weights[0][k]) for w in weights for k in w)
    assert bare["final"] is None and {r[1] for r in unlabelled[1:]} == {""} and scored["final"]["ACC"]["mean"] < .7


def test_diagnosis_by_hand():
    def seed(labels, change):
        return {"labels": np.array(labels), "history": [{"label_change": c} for c in change],
                "record": {"clusters": 2, "clusters_used": len(set(labels))}}
    same = {0: seed([0, 0, 1, 1], [1] + [0] * 5), 1: seed([1, 1, 0, 0], [0] * 5)}
    assert train.diagnosis(same)[:2] == (1.0, 0.0) and "looks reliable" in train.diagnosis(same)[2]
    apart = {**same, 2: seed([0, 1, 0, 1], [0, .2, .2])}  # ARI of the pairs: 1, -.5, -.5
    agreement, change, verdict = train.diagnosis(apart)
    assert agreement == pytest.approx(0) and change == pytest.approx(.4 / 13)
    assert "agree only" in verdict and "changed" not in verdict
    assert "still changed" in train.diagnosis({0: seed([0, 1], [.1])})[2]
    assert "stayed empty" in train.diagnosis({0: seed([1, 1], [0])})[2]
    assert train.diagnosis({0: seed([0, 1], [])})[:2] == (None, None)


@pytest.mark.parametrize("options, split, g, paper", [
    ([], "test", 4, True), (["--split", "train"], "train", 4, True), (["--clusters", "3"], "test", 3, False),
    (["--data", str(ROOT / "data/BasicMotions/BasicMotions_TRAIN.arff")], "train", 4, True)])
def test_the_papers_row_stands_only_beside_the_papers_data(tmp_path, options, split, g, paper):
    found, _ = run_train(tmp_path, "--seeds", "0", "--epochs", "0", *options)
    assert (found["split"], found["n_clusters"]) == (split, g)
    assert (found["paper"] is not None) == (paper and split == "test")


def test_numbers_that_blow_up_in_the_last_step_are_an_error(tmp_path, capsys):
    assert train.main(["--quiet", "--epochs", "1", "--lr", "1e9", "--out", str(tmp_path / "x")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "lr" in told[0] and not list((tmp_path / "x").glob("seed_*.npz"))


def test_raw_features_loop_twin():
    X = np.random.default_rng(0).normal(3, 2, (5, 4, 3)).astype(np.float32)
    X[:, :, 1], X[0, 1, 0], X[2, :, 2] = 7, np.nan, np.nan
    twin = np.zeros((5, 4, 3))
    for d in (0, 2):
        seen = [float(v) for v in X[:, :, d].ravel() if v == v]
        for n, t in itertools.product(range(5), range(4)):
            if X[n, t, d] == X[n, t, d]:
                twin[n, t, d] = (X[n, t, d] - statistics.mean(seen)) / statistics.pstdev(seen)
    assert np.allclose(train.raw_features(X).numpy(), twin.reshape(5, 12), atol=1e-5)


def test_options_are_those_of_the_estimator(capsys):
    parameters = inspect.signature(EMTC).parameters
    assert set(train.OPTIONS) == set(parameters) - {"n_clusters", "seed"}
    assert train.main(["--list"]) == 0 and len(capsys.readouterr().out.splitlines()) == 18


@pytest.mark.parametrize("options, told", [
    (["--data", "BasicMotion"], "BasicMotions"), (["--data", "no.ts"], "no.ts"), (["--clusters", "41"], "41"),
    (["--epochs", "-1"], "epochs"), (["--epochs", "few"], "--epochs"), (["--lr", "nan"], "--lr"), (["--tau", "0"], "tau"),
    (["--mask", "mine"], "--mask"), (["--seeds", "-1"], "--seeds"), (["--device", "tpu"], "--device"),
    (["--method", "mug", "--tau", "1"], "--tau"), (["--method", "simmtm", "--tau", "0"], "tau"),
    (["--method", "nc-vqvae", "--width", "8"], "--width"), (["--model", "m.pt"], "--predict"), (["--bogus"], "--bogus")])
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    try:
        status = train.main(options)
    except SystemExit as end:  # argparse ends the process itself
        status = end.code
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and lines[0].startswith("train.py: error: ") and told in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["simmtm", "nc-vqvae", "mug"])
def test_a_related_method_gives_the_same_report(tmp_path, method):
    found, rows = run_train(tmp_path, "--method", method, "--epochs", "1", "--seeds", "0", "1")
    assert found["method"] == method and found["baselines"]["untrained"] and len(rows) == 41
