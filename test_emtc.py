"""Tests of the core: `python -m pytest test_emtc.py`. No network, nothing beyond requirements.txt.

In the paper's order: a test or two for each equation, then Algorithm 1. The oracles are independent:
values by hand and loops, on inputs without symmetry (alpha differs from beta, D from T from N,
classes of unequal size, values missing). The tests of k-means, metrics, loader and command line are
in support/test_core.py, those of what is ours in the training in support/test_ours.py.
"""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import emtc
import metrics
from emtc import EMTC

ROOT = Path(__file__).parent
INF = math.inf
torch.set_num_threads(1)  # the tests' tensors are small

# ------------------------------------------------------------------ the equations


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def toy(N=12, T=20, D=3, seed=0):
    """Two classes of noisy sines, fast and slow, of unequal size: X (N, T, D) float32."""
    rng = np.random.default_rng(seed)
    speed = np.where(np.arange(N) % 3 > 0, 0.3, 1.2)[:, None, None]
    wave = np.sin(speed * np.arange(T)[:, None] + rng.uniform(0, 6, (N, 1, D)))
    return (wave + 0.1 * rng.normal(size=(N, T, D))).astype("f4")


def fitted(X=None, g=2, **options):
    small = {"epochs": 3, "width": 8, "batch_size": 5, "n_starts": 1, "n_init": 5, "epsilon": 0.45}
    return EMTC(g, **{**small, **options}).fit(toy() if X is None else X)


def test_every_equation_has_one_home_in_ascending_order():
    homes = re.findall(r"Eq\. \((\d+)\)", (ROOT / "emtc.py").read_text())
    assert homes == [str(n) for n in range(1, 14)]


def test_eq1_by_loops_and_each_variate_alone():
    B, D, h, T = 2, 3, 2, 9
    x, W1, b1 = rand(B, D, T), rand(D * h, 1, 3, seed=1), rand(D * h, seed=2)
    W2, b2 = rand(D * h, h, 3, seed=3), rand(D * h, seed=4)
    observed = rand(B, D, T, seed=5) > -1
    Z = emtc.single_variate_embedding(x, W1, b1, W2, b2, observed)
    assert Z.shape == (B, D, T, h)
    pad = torch.nn.functional.pad
    for b, d in itertools.product(range(B), range(D)):
        p = pad(x[b, d], (1, 1))
        first = torch.stack([torch.stack([(W1[d * h + c, 0] * p[t : t + 3]).sum() + b1[d * h + c]
                                          for t in range(T)]) for c in range(h)])  # fmt: skip
        p = pad(first.clamp_min(0) * observed[b, d], (2, 2))  # (h, T + 4)
        for t, c in itertools.product(range(T), range(h)):
            want = (W2[d * h + c] * p[:, t : t + 5 : 2]).sum() + b2[d * h + c]
            assert torch.isclose(Z[b, d, t, c], want.clamp_min(0), atol=1e-5)


def test_eq2_by_loops_and_its_network():
    B, D, T, h = 2, 2, 6, 4
    Q, K, Z = rand(B, D, T, h), rand(B, D, 4, h, seed=1), rand(B, D, 4, h, seed=2)
    observed = torch.ones(B, D, 4, dtype=torch.bool)
    observed[0, 1, 2], observed[1, 0] = False, False  # one key, and all keys of a series
    S = emtc.attention(Q, K, Z, observed)
    for b, d, t in itertools.product(range(B), range(D), range(T)):
        score = [float(Q[b, d, t] @ K[b, d, n]) / math.sqrt(h) for n in range(4)]
        seen = observed[b, d] if observed[b, d].any() else torch.ones(4, dtype=torch.bool)
        w = [math.exp(s) * bool(o) for s, o in zip(score, seen, strict=True)]
        want = sum(a * z for a, z in zip(w, Z[b, d], strict=True)) / sum(w)
        assert torch.allclose(S[b, d, t], want, atol=1e-5)
    # The network: Q and K of Z, keys at every step-th timestamp, one number for each entry.
    f, x = emtc.Importance(D, h, 4, torch.Generator().manual_seed(0)), rand(B, D, T, seed=6)
    all_of = torch.ones(B, D, T, dtype=torch.bool)
    Z = emtc.single_variate_embedding(x, f.W1, f.b1, f.W2, f.b2, all_of)
    S = emtc.attention(Z @ f.Q, Z[:, :, ::2] @ f.K, Z[:, :, ::2], all_of[:, :, ::2])
    assert torch.equal(f(x, all_of), emtc.importance(S, f.w, all_of))
    assert torch.allclose(f.Q.T @ f.Q, torch.eye(h), atol=1e-5)
    assert torch.equal(f.Q, f.K) and f.w.min() >= 0
    big = emtc.Importance(500, 4, 9, torch.Generator().manual_seed(0))  # variances 2 / fan_in
    assert big.W1.var().item() == pytest.approx(2 / 3, rel=0.1)
    assert big.W2.var().item() == pytest.approx(2 / 12, rel=0.1)


def test_importance_is_standardised_over_the_whole_sample():
    S, w, observed = rand(2, 3, 5, 4), rand(4, seed=1), rand(2, 3, 5, seed=2) > -0.5
    got = emtc.importance(S, w, observed)
    for b in range(2):
        v = np.array([float(S[b, d, t] @ w) for d, t in observed[b].nonzero().tolist()])
        want = 1 / (1 + np.exp(-(v - v.mean()) / v.std()))
        np.testing.assert_allclose(got[b][observed[b]].numpy(), want, atol=1e-5)
    assert (got[~observed] == 0.5).all()


def test_eq3_by_hand():
    S = torch.tensor([[[0.2, 0.5, 0.9], [0.4, 0.1, 0.3]]])
    M = emtc.threshold(S, torch.ones_like(S, dtype=torch.bool), 0.5)
    assert M.tolist() == [[[False, True, True], [False, False, False]]]  # 0.5 >= 0.5 is kept
    seen = torch.tensor([[[True, True, False], [True, True, True]]])
    assert emtc.threshold(S, seen, 0.3).tolist() == [[[False, True, False], [True, False, True]]]
    assert emtc.threshold(S, seen, 0.95).tolist() == [[[False, True, False], [False] * 3]]
    assert torch.equal(emtc.threshold(S, seen, 0.0), seen)


def test_mask_is_hard_forward_and_soft_backward():
    S = torch.tensor([0.3, 0.8], requires_grad=True)
    M = emtc.straight_through(torch.tensor([True, False]), S)
    assert M.tolist() == [1, 0]
    (M * torch.tensor([2.0, 3.0])).sum().backward()
    assert S.grad.tolist() == [2, 3]


def test_eq4_views_and_their_encoders():
    f = emtc.Encoder(3, 33, 10, 5, torch.Generator().manual_seed(0))
    assert [W.shape for W in f.W] == [
        (2, 3, 5),
        (2, 3, 5),
        (3, 3, 5),
        (3, 3, 5),
    ]  # dilations 1 to 8
    x, other = rand(4, 3, 33), rand(4, 3, 33, seed=1)
    f.scale(x / 100)
    assert torch.allclose(f(x / 100).std((0, 2)), torch.ones(10), atol=1e-4)
    f.scale(x)
    F = f(x)
    assert F.shape == (4, 10, 33)
    np.testing.assert_allclose(F.detach().std((0, 2)).numpy(), 1, atol=1e-5)
    level = f(x + 7)[:, :, 16] - F[:, :, 16]  # inner: padding does not show
    c = 0
    for e, W in enumerate(f.W):
        for k in range(len(W)):
            kernel = W[k] - W[k].mean(1, keepdim=True) if k % 2 else W[k]
            taps = [16 + 2**e * (i - 2) for i in range(5)]
            assert torch.allclose((kernel * x[0][:, taps]).sum(), F[0, c, 16], atol=1e-4)
            assert (level[:, c].abs().max() < 1e-4) == bool(k % 2)
            c += 1
    f.mix.data.normal_(generator=torch.Generator().manual_seed(1))
    mixed = torch.einsum("oc,bct->bot", f.mix[:, :, 0], F.relu())
    assert torch.allclose(f(x), F + mixed, atol=1e-4)
    assert torch.equal(emtc.views([f, torch.nn.Identity()][:1] * 2, other)[1], f(other))
    net = fitted(n_views=4, epochs=0).net_
    assert [v.W[0].shape[2] for v in net.encoders] == [5, 9, 3, 5]
    assert len(net.R.W) == 6 and len(net.H.W) == 4 and len(net.pairs) == 12


def test_the_plainest_encoder_and_the_decoders_by_loops():
    f, x = emtc.Stack(2, 30, 4, 3, torch.Generator().manual_seed(0)), rand(1, 2, 30)
    want = x
    for e, (W, b) in enumerate(zip(f.W, f.b, strict=True)):
        want = want.relu() if e else want
        d = 2**e
        p = torch.nn.functional.pad(want, (d, d))
        taps = torch.stack([p[:, :, i * d : i * d + 30] for i in range(3)], 3)  # (1, c, 30, 3)
        want = torch.einsum("ock,bctk->bot", W, taps) + b[:, None]
    assert torch.allclose(f(x), want, atol=1e-5)
    assert 0.3 < f.W[1].abs().max() * math.sqrt(12) <= 1
    m, v = emtc.MLPs(2, [3, 4, 2], torch.Generator().manual_seed(0)), rand(2, 5, 3)
    for b in m.b:
        b.data.normal_(generator=torch.Generator().manual_seed(2))
    for g in range(2):
        hidden = (v[g] @ m.W[0][g] + m.b[0][g]).clamp_min(0)
        assert torch.allclose(m(v)[g], hidden @ m.W[1][g] + m.b[1][g], atol=1e-6)


def test_eqs5_to_7_by_loops():
    X, X_v, observed = rand(4, 3), rand(2, 4, 3, seed=1), rand(4, 3, seed=2) > -0.5
    total = sum(float((X[n, d] - X_v[v, n, d]) ** 2) for v in range(2)
                for n, d in observed.nonzero().tolist())  # fmt: skip
    assert float(emtc.intra_loss(X, X_v, observed)) == pytest.approx(total / int(observed.sum()))
    assert float(emtc.intra_loss(X, X_v, torch.zeros_like(observed))) == 0
    F = rand(3, 5, 4)
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    scale = torch.arange(1.0, 7)[:, None, None]
    want = 0
    for k, (i, j) in enumerate(pairs):
        squares = [
            float(F[j, n, c] - (k + 1) * F[i, n, c]) ** 2 for n in range(5) for c in range(4)
        ]
        one = emtc.pair_loss(F[j], (k + 1) * F[i])
        assert float(one) == pytest.approx(sum(squares) / 20)
        want += sum(squares) / 20
    assert float(emtc.inter_loss(F, lambda v: v * scale, pairs)) == pytest.approx(want, rel=1e-5)


def test_eq8_pooling_and_fusion_by_hand():
    F, seen = rand(2, 3, 4, 7), rand(3, 7, seed=1) > -1
    seen[1, 4:] = False
    pooled, plain = emtc.pool_shares(F, seen), emtc.pool_mean(F, seen)
    assert pooled.shape == (2, 3, 8)
    for v, b, c in itertools.product(range(2), range(3), range(4)):
        f = F[v, b, c][seen[b]].numpy()
        assert float(pooled[v, b, c]) == pytest.approx(np.tanh(3 * f).mean(), abs=1e-5)
        assert float(pooled[v, b, 4 + c]) == pytest.approx(f.max())
        assert float(plain[v, b, c]) == pytest.approx(f.mean(), abs=1e-5)
    shift, scale, W = rand(16, seed=2), rand(16, seed=3).abs() + 1, rand(16, 5, seed=4)
    E = emtc.fuse(pooled, shift, scale, W)
    row = (np.concatenate([pooled[0, 2], pooled[1, 2]]) - shift.numpy()) / scale.numpy() @ W.numpy()
    np.testing.assert_allclose(E[2], row / np.linalg.norm(row), atol=1e-5)
    as_printed = fitted(as_printed=True, epochs=0)
    x, _ = as_printed._prepare(toy())
    F = emtc.views(as_printed.net_.encoders, x)
    np.testing.assert_allclose(as_printed.embedding_, F.mean(3).mean(0).detach(), atol=1e-5)


def test_the_fusion_starts_as_a_partial_whitening():
    pooled = rand(1, 50, 8) * torch.arange(1.0, 9) ** 2 @ rand(8, 8, seed=1)
    pooled[0, :, 5] = 3  # constant, so that it counts as 0
    shift, scale, W = emtc.whitening(pooled, 4)
    v = pooled[0].numpy().astype(float)
    std = np.where(v.std(0) > 1e-5, v.std(0), 1)
    np.testing.assert_allclose(shift, v.mean(0), atol=1e-4)
    np.testing.assert_allclose(scale, std, rtol=1e-4)
    e = ((v - v.mean(0)) / std) @ W.double().numpy()
    s = np.linalg.svd((v - v.mean(0)) / std)[1]
    norms = np.linalg.norm(e, axis=0)  # s * (s / s[0]) ** -0.75
    np.testing.assert_allclose(norms, s[:4] ** 0.25 * s[0] ** 0.75, rtol=1e-3)
    np.testing.assert_allclose(e.T @ e, np.diag(norms**2), atol=1e-2)
    small = emtc.whitening(rand(1, 3, 8), 4)[2]  # three samples span two components
    assert small.shape == (8, 4) and not small[:, 2:].any() and small[:, :2].any()
    assert not emtc.whitening(torch.ones(1, 5, 8), 4)[2].any()
    # Three columns that are equal but for rounding: the second component is 100^.75 louder, no more.
    tiny = torch.cat([rand(40, 1) + 1e-6 * rand(40, 1, seed=s) for s in (1, 2, 3)], 1)[None]
    assert emtc.whitening(tiny, 2)[2][:, 1].norm() == pytest.approx(100**0.75, rel=1e-3)


def test_eq9_clusters_keep_their_names():
    E = torch.tensor([[0.0, 0], [0, 1], [9, 9], [9, 8], [0, 2], [-9, 9.0]])
    before = torch.tensor([2, 2, 0, 0, 1, 1])
    C, centres = emtc.cluster(E, 3, 20, torch.Generator().manual_seed(0), before)
    assert C.tolist() == [2, 2, 0, 0, 2, 1]
    assert torch.allclose(centres, torch.tensor([[9, 8.5], [-9, 9], [0, 1]]))
    plain, _ = emtc.cluster(E, 3, 20, torch.Generator().manual_seed(0))
    assert metrics.ari(plain, C) == 1


def test_eqs10_to_12_by_loops():
    E, C, tau, i = rand(7, 3), torch.tensor([0, 1, 0, 2, 1, 0, 1]), 0.7, [5, 3, 1]
    j = [5, 3, 1, 0, 2, 4, 6]
    for itself in (False, True):
        positive, negative = emtc.cluster_pairs(C[i], C[j], itself)
        sim = emtc.cosine(E[j], E[i] * 4)
        terms = []
        for a, anchor in enumerate(i):
            plus = minus = 0.0
            for b, other in enumerate(j):
                cos = float(E[anchor] @ E[other] / E[anchor].norm() / E[other].norm())
                assert float(sim[a, b]) == pytest.approx(cos, abs=1e-5)
                if C[anchor] != C[other]:
                    minus += math.exp(cos / tau)
                elif itself or anchor != other:
                    plus += math.exp(cos / tau)
            log = emtc.pair_sum(sim[a : a + 1], negative[a : a + 1], tau)
            assert float(log) == pytest.approx(math.log(minus), abs=1e-5)
            if plus:  # sample 3 is alone in its cluster
                terms.append(-math.log(plus / (plus + minus)))
        assert len(terms) == (3 if itself else 2)
        L = [emtc.pair_sum(sim, p, tau) for p in (positive, negative)]
        assert float(emtc.contrast(*L)) == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    alone = torch.full((2,), -INF)
    assert float(emtc.contrast(alone, torch.zeros(2))) == 0
    assert float(emtc.contrast(torch.zeros(2), alone)) == 0  # one cluster: nothing to tell apart
    wild = emtc.contrast(*(emtc.pair_sum(sim, p, 1e-6) for p in (positive, negative)))
    assert wild.isfinite()


def test_eq13_by_hand():
    assert emtc.total_loss(2, 3, 5, alpha=0.5, beta=0.1) == 2 + 1.5 + 0.5


def test_gradcheck_of_each_loss():
    double = lambda *shape, seed=0: rand(*shape, seed=seed).double().requires_grad_()
    C = torch.tensor([0, 0, 1, 1, 0])
    pairs = emtc.cluster_pairs(C, C, False)
    for loss, inputs in (
        (lambda X, X_v: emtc.intra_loss(X, X_v, rand(3, 2) > -0.5),
         (double(3, 2), double(2, 3, 2, seed=1))),
        (emtc.pair_loss, (double(3, 2), double(3, 2, seed=1))),
        (lambda E: emtc.contrast(*(emtc.pair_sum(emtc.cosine(E, E), p, 0.5) for p in pairs)),
         (double(5, 3),)),
        (lambda S, w: emtc.importance(S, w, rand(1, 2, 4) > -1),
         (double(1, 2, 4, 3), double(3, seed=1))),
    ):  # fmt: skip
        assert torch.autograd.gradcheck(loss, inputs)


# ------------------------------------------------------------------ Algorithm 1


def test_a_record_is_the_mean_of_its_batches_and_uses_every_option(monkeypatch):
    """Spies at the equations see what `fit` hands them; the record must follow from it."""
    seen, N = {}, 14
    for name in ("total_loss", "pair_sum", "intra_loss", "cosine", "straight_through", "views",
                 "single_variate_embedding"):  # fmt: skip

        def spy(*args, _name=name, _real=vars(emtc)[name], **more):
            out = _real(*args, **more)
            if torch.is_grad_enabled():  # not the networks' look at all series
                seen.setdefault(_name, []).append((args, more, out))
            return out

        monkeypatch.setattr(emtc, name, spy)
    masks = []
    keep = lambda m, r: masks.append((m.mask_.copy(), m._S.clone()))
    options = dict(tau=0.3, alpha=0.7, beta=0.2, epochs=2, n_views=3, batch_size=4, width=8, seed=1)
    model = EMTC(2, n_starts=1, epsilon=0.45, **options).fit(toy(N), on_epoch=keep)
    assert len(seen["total_loss"]) == 8  # 4, 4, 4 and 2 samples, twice
    sizes = [len(args[0]) for args, _, _ in seen["straight_through"]]
    assert sizes == [4, 4, 4, 2] * 2
    for epoch in range(2):
        calls = seen["total_loss"][4 * epoch : 4 * epoch + 4]
        for k, name in enumerate(("contra", "intra", "inter")):
            want = (
                sum(args[k].item() * n for (args, _, _), n in zip(calls, sizes, strict=False)) / N
            )
            assert model.history_[epoch][name] == pytest.approx(want, rel=1e-5)
        total = sum(out.item() * n for (_, _, out), n in zip(calls, sizes, strict=False)) / N
        assert model.history_[epoch]["total"] == pytest.approx(total, rel=1e-5)
    assert all(args[3:] == (0.7, 0.2) for args, _, _ in seen["total_loss"])
    assert all(args[2] == 0.3 for args, _, _ in seen["pair_sum"])
    assert all(len(args[0]) == N for args, _, _ in seen["cosine"])  # each against all the others
    # Each of the two versions is the anchors once, and then the other one stands against it.
    pairs = [args for args, _, out in seen["cosine"] if out.requires_grad]
    for (E_b, E_a), (E_d, E_c) in zip(pairs[::2], pairs[1::2], strict=True):
        assert torch.equal(E_b[: len(E_c)], E_c) and torch.equal(E_d[: len(E_a)], E_a)
        assert not torch.equal(E_a, E_c)
    # The second epoch masks by the first epoch's set, and every sample once, in another order.
    x, used = model._prepare(toy(N))[0], [args[0] for args, _, _ in seen["straight_through"][4:]]
    given = torch.cat([args[0] for args, _, _ in seen["single_variate_embedding"][4:]])
    order = [n for row in given for n in range(N) if torch.equal(row, x[n])]
    assert sorted(order) == list(range(N)) != order
    assert torch.equal(torch.cat(used), torch.from_numpy(masks[0][0][order]).transpose(1, 2))
    assert 0 < masks[0][0].mean() < 1
    shown = seen["views"][0][0][1]
    assert shown.shape == (4, 3, 20) and (shown == 0).float().mean() > 0.05


def test_the_contrast_sends_gradient_and_every_weight_learns():
    first = fitted(epochs=0)
    model = fitted(epochs=2, hide=0.3)
    start = dict(first.net_.named_parameters())
    for name, w in model.net_.named_parameters():
        assert not torch.equal(w, start[name]), f"{name} did not learn"
    only = fitted(epochs=1, drop=("intra", "inter"))
    moved = [n for n, w in only.net_.named_parameters() if not torch.equal(w, start[n])]
    assert {n.split(".")[0] for n in moved} == {"importance", "encoders", "fusion"}
    model = fitted(epochs=2, mask="frozen")
    assert not model.mask_.all()
    np.testing.assert_allclose(model.transform(toy()), model.embedding_, atol=1e-6)
    frozen = model.net_.importance.state_dict()
    assert all(torch.equal(v, first.net_.importance.state_dict()[k]) for k, v in frozen.items())
    lrs = {g["lr"] for g in fitted(lr=0.01, mask_lr=7.0, epochs=0)._adam.param_groups}
    assert sorted(lrs) == pytest.approx([0.01, 0.03, 0.07])


def test_the_results_are_of_the_last_record():
    records = []
    model = EMTC(2, epochs=4, width=8, n_starts=1, epsilon=0.45)
    model.fit(
        toy(), on_epoch=lambda m, r: records.append((m.labels_, m.mask_, m.embedding_, dict(r)))
    )
    labels, mask, embedding, record = records[-1]
    assert record == model.history_[-1] and [r["epoch"] for *_, r in records] == [1, 2, 3, 4]
    for got, want in ((model.labels_, labels), (model.mask_, mask), (model.embedding_, embedding)):
        assert np.array_equal(got, want)
    assert record["kept"] == pytest.approx(mask.mean()) and 0.2 < record["kept"] < 0.8
    change = [(a[0] != b[0]).mean() for a, b in itertools.pairwise(records)]
    assert [r["label_change"] for *_, r in records[1:]] == pytest.approx(change)
    nearest = ((embedding[:, None] - model.cluster_centers_) ** 2).sum(2).argmin(1)
    assert np.array_equal(nearest, labels) and np.array_equal(model.predict(toy()), labels)
    np.testing.assert_allclose(model.transform(toy()), embedding, atol=1e-6)
    np.testing.assert_allclose(model.transform(toy()[2:5]), embedding[2:5], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert (model.importance_ > 0).all() and (model.importance_ < 1).all()
    whole = EMTC(2, epochs=0, mask="none", n_starts=1, width=8).fit(toy())
    given = np.random.default_rng(0).random((12, 20, 3)) < 0.3
    some = EMTC(2, epochs=0, mask=given, n_starts=1, width=8).fit(toy())
    assert np.array_equal(some.mask_, given) and whole.mask_.all()
    assert np.array_equal(some.labels_, whole.labels_)  # the first clusters see all that is there


def test_training_ends_once_the_labels_have_settled():
    X = toy(16) * 3
    model = fitted(X, epochs=60, patience=3, hide=0.08)
    last = [r["label_change"] for r in model.history_[-3:]]
    assert 3 <= len(model.history_) < 60 and max(last) <= 0.01
    assert model.history_[-1]["hidden"] == pytest.approx(0.08)
    model._hidden = 0.07  # settled, but more can be hidden yet
    assert not model._converged()


def test_one_seed_repeats_bit_for_bit_and_leaves_the_callers_rng_alone():
    before = torch.get_rng_state()
    one, two, other = fitted(), fitted(), fitted(seed=1)
    assert torch.equal(before, torch.get_rng_state()) and one.history_ == two.history_
    assert np.array_equal(one.embedding_, two.embedding_) and one.history_ != other.history_


def test_resume_is_bit_equal_and_saved_models_come_back(tmp_path):
    states = {}  # after each epoch of a trial, (trial, epoch), and of the training, (0, epoch)
    keep = lambda m, r: states.update({(r.get("trial", 0), r["epoch"]): m.checkpoint()})
    whole = EMTC(2, n_starts=3, epochs=3, width=8).fit(toy(), on_epoch=keep, on_trial=keep)
    assert [*states] == [(t, e) for t in (1, 2, 3, 0) for e in (1, 2, 3)]
    for state in (states[2, 2], states[0, 1]):
        again = EMTC(2, n_starts=3, epochs=3, width=8).fit(toy(), resume=state)
        assert whole.history_ == again.history_
        assert np.array_equal(whole.embedding_, again.embedding_)
    whole.save(tmp_path / "m.pt")
    back = EMTC.load(tmp_path / "m.pt")
    new = toy(5, seed=3)
    assert np.array_equal(back.predict(new), whole.predict(new)) and back.history_ == whole.history_
    assert [f.name for f in tmp_path.iterdir()] == ["m.pt"]
    with pytest.raises(ValueError, match="D, T"):
        EMTC(2, n_starts=3, epochs=3, width=8).fit(toy(T=9), resume=state)


def test_missing_values_and_padding_do_not_count(monkeypatch):
    X, seen, real = toy(), [], emtc.intra_loss
    X[3, 12:], X[5, 4, 1] = np.nan, np.nan
    monkeypatch.setattr(emtc, "intra_loss", lambda *args: seen.append(args[2]) or real(*args))
    model = fitted(X)
    assert sum(int((~observed).sum()) for observed in seen) == len(model.history_)  # of X[5, 4]
    gap = np.isnan(X)
    assert not model.mask_[gap].any() and not model.importance_[gap].any()
    assert np.array_equal(fitted(X, epochs=0).importance_, np.where(gap, 0, 0.5).astype("f4"))
    padded = np.concatenate([X, np.full((12, 4, 3), np.nan, "f4")], 1)
    other = fitted(padded)
    assert other.history_ == model.history_ and np.array_equal(other.labels_, model.labels_)
    assert other.mask_.shape == padded.shape and not other.mask_[:, 20:].any()
    ragged = [x[~np.isnan(x).all(1)] for x in X]
    assert fitted(ragged).history_ == model.history_
    scaled = fitted(
        X * np.float32([1, 100, 0.01]) + np.float32([5, 0, -3])
    )  # only the unit differs
    assert metrics.ari(scaled.labels_, model.labels_) > 0.6
    z, seen = emtc.z_scored(X)
    for d in range(3):
        v = X[:, :, d][~gap[:, :, d]].astype(float)
        np.testing.assert_allclose(z[:, :, d][~gap[:, :, d]], (v - v.mean()) / v.std(), atol=1e-5)
    assert not z[gap].any() and torch.equal(seen, torch.from_numpy(~gap))


@pytest.mark.parametrize("part", emtc.CHOICES["drop"])
def test_each_part_can_be_dropped(part):
    model = fitted(drop=part)
    record = model.history_[-1]
    if part == "ivm":
        assert model.mask_.all() and record["kept"] == 1
    elif part == "mev":
        assert len(model.net_.encoders) == 1 and record["inter"] == 0
    else:
        assert record[part] == 0 and record["total"] > 0


def test_the_size_of_a_batch_counts():
    assert fitted(batch_size=2).history_ != fitted(batch_size=3).history_


def test_reconstruction_is_of_observed_timestamps_drawn_anew(monkeypatch):
    monkeypatch.setattr(emtc, "TIMESTAMPS", 21)
    model = fitted(epochs=0)
    x, F = rand(3, 2, 10), rand(4, 3, 5, 10, seed=1)
    x[:, 0] = torch.arange(30.0).view(3, 10)  # tells which series and timestamp a row is of
    F[:, :, 0] = x[:, 0]
    observed = torch.ones(3, 2, 10, dtype=torch.bool)
    observed[1, :, 3:] = False  # three timestamps are left of this series
    observed[2, 1, 0] = False
    F_n, x_n, observed_n = model._timestamps(F, x, observed)
    assert F_n.shape == (4, 21, 5) and x_n.shape == observed_n.shape == (21, 2)
    rows = x_n[:, 0].long()
    assert torch.equal(rows // 10, torch.arange(3).repeat_interleave(7))
    assert set(rows[7:14].tolist()) == {10, 11, 12}
    assert len(set(rows[:7].tolist())) == len(set(rows[14:].tolist())) == 7
    for n, row in enumerate(rows.tolist()):
        b, t = divmod(row, 10)
        assert torch.equal(x_n[n], x[b, :, t]) and torch.equal(F_n[:, n], F[:, b, :, t])
        assert torch.equal(observed_n[n], observed[b, :, t])
    again = model._timestamps(F, x, observed)[1][:, 0].long()
    assert not torch.equal(again, rows)
