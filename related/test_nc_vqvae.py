"""NC-VQVAE's two stages, its losses and the estimator, by hand-computed values and loop twins."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from related import common, maskgit, nc_vqvae, second_view
from related.nc_vqvae import NCVQVAE, Quantiser
from related.test_related import SMALL_VQ, rng, series

SMALL = {**SMALL_VQ, "batch_size": 8}


@pytest.fixture(scope="module")
def fitted():
    X, y = series()
    return NCVQVAE(2, epochs=2, **SMALL).fit(X).fit_prior(X, y, epochs=2, dim=16, n_layers=1), X, y


# ---- time-frequency and augmentations -----------------------------------------------------------


def test_stft_is_the_windowed_fourier_sum_and_istft_undoes_it():
    for T, D in [(5, 1), (20, 2), (25, 3)]:
        x = torch.randn(3, T, D, generator=rng())
        u = nc_vqvae.stft(x)
        assert u.shape == (3, 2 * D, 5, T // 2 + 1)
        torch.testing.assert_close(nc_vqvae.istft(u, T), x, atol=1e-5, rtol=1e-5)
    k = np.arange(8)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * k / 8)
    for d, f, frame in itertools.product(range(3), range(5), (3, 5)):  # frames off the borders
        rows = x[0, 2 * frame - 4 + k, d].numpy()
        want = (window * rows * np.exp(-2j * np.pi * f * k / 8)).sum()
        got = complex(u[0, 2 * d, f, frame], u[0, 2 * d + 1, f, frame])
        assert got == pytest.approx(want, abs=1e-4)


def test_slice_shuffle_moves_at_most_four_whole_pieces_of_all_variates_alike():
    x = torch.arange(60.0).reshape(1, 30, 2).repeat(200, 1, 1)
    out = second_view.slice_shuffle(x, rng())
    step = out[..., 0] / 2  # where each step came from
    assert (step.sort(dim=1).values == torch.arange(30.0)).all()
    assert (out[..., 1] == out[..., 0] + 1).all()
    breaks = (step.diff(dim=1) != 1).sum(1)
    assert breaks.max() == 3 and len({tuple(row) for row in step.tolist()}) > 150


def test_window_warp_against_interpolation_of_the_same_draws():
    T, g, x = 41, rng(3), torch.randn(20, 41, 2, generator=rng())
    out = second_view.window_warp(x, rng(3)).numpy()
    gain = 1 + 0.2 * torch.randn(20, 1, 1, generator=g).numpy()
    start = torch.rand(20, 1, generator=g).numpy() * (T - 1 - 0.4 * T)
    stretch, step = 0.9 + 1.1 * torch.rand(20, 1, generator=g).numpy(), np.linspace(0, T - 1, 40001)
    for b, d in itertools.product(range(20), range(2)):
        # When each step of x is passed in the warped series, which is then squeezed onto T steps.
        passed = step + (stretch[b] - 1) * np.clip(step - start[b], 0, 0.4 * T)
        source = np.interp(np.linspace(0, passed[-1], T), passed, step)
        want = gain[b] * np.interp(source, np.arange(T), x[b, :, d].numpy())
        np.testing.assert_allclose(out[b, :, d], want[0], atol=5e-3)


def test_gauss_adds_noise_of_005_and_no_augmentation_touches_its_input():
    x = torch.zeros(50, 100, 2)
    assert second_view.gauss(x, rng()).std().item() == pytest.approx(0.05, rel=0.03)
    for augment in second_view.AUGMENT.values():
        x = torch.randn(4, 30, 2, generator=rng())
        before = x.clone()
        assert augment(x, rng()).shape == x.shape and torch.equal(x, before)


# ---- non-contrastive losses ---------------------------------------------------------------------


CROSS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # uncorrelated features


def test_barlow_twins_by_hand():
    assert second_view.barlow_twins(CROSS, CROSS).item() == pytest.approx(0, abs=1e-8)
    ya = 3 * CROSS[:, [0, 0]] + 5  # C = [[1, 1], [0, 0]]
    for lam in (0.005, 0.5):
        loss = second_view.barlow_twins(CROSS, ya, lam)
        assert loss.item() == pytest.approx((1 + lam) / 2, abs=1e-4)
    assert second_view.barlow_twins(CROSS, -CROSS).item() == pytest.approx(4, abs=1e-3)


def test_vicreg_by_hand_term_by_term():
    y = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])  # variance 2 and 8, covariance 4
    small = 0.1 * y  # variance .02 and .08, covariance .04
    hinge = (2 - math.sqrt(0.02 + 1e-4) - math.sqrt(0.08 + 1e-4)) / 2
    terms = [(0.9**2 + 0.9**2 * 4) / 2, hinge, 16 + 0.04**2]
    for weights in ((25, 25, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        want = sum(w * term for w, term in zip(weights, terms))
        assert second_view.vicreg(y, small, *weights).item() == pytest.approx(want, rel=1e-5)
    default = second_view.vicreg(y, small)
    assert torch.equal(default, second_view.vicreg(y, small, 25, 25, 1))


def test_vibcreg_by_hand_and_its_covariance_ignores_scale():
    y = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])  # correlation 1: two of four entries
    assert second_view.vibcreg(y, y).item() == pytest.approx(100, rel=1e-5)
    assert second_view.vibcreg(7 * y, 7 * y).item() == pytest.approx(100, rel=1e-5)
    got = second_view.vibcreg(CROSS, CROSS + 0.5)  # no correlation, variance 4/3
    assert got.item() == pytest.approx(25 * 0.25, rel=1e-5)


def test_iter_norm_whitens_each_group():
    mix = torch.randn(8, 8, generator=rng()) * 0.3 + torch.eye(8)
    y = torch.randn(4000, 8, generator=rng(1)).double() @ mix.double() + 5
    eye = torch.eye(4).double()
    for steps, atol in ((5, 0.03), (10, 1e-4)):  # five are the code's
        for part in second_view.iter_norm(y, steps=steps, group=4).split(4, dim=1):
            torch.testing.assert_close(part.T @ part / 4000, eye, atol=atol, rtol=0)

    for batch, variance in ((32, 0.35), (128, 0.51)):  # 64 features in a group are not white yet
        out = second_view.iter_norm(torch.randn(batch, 64, generator=rng()))
        assert out.var(0).mean().item() == pytest.approx(variance, abs=0.02)


# ---- quantiser and loss -------------------------------------------------------------------------


def test_quantiser_returns_nearest_codes_with_straight_through_gradient():
    q = Quantiser(5, 3).eval()
    z = torch.randn(2, 3, 5, 4, generator=rng(), requires_grad=True)
    z_q, commitment = q(z)
    for b, f, w in itertools.product(range(2), range(5), range(4)):
        gaps = [((z[b, :, f, w] - code) ** 2).sum().item() for code in q.codes]
        nearest = q.codes[int(np.argmin(gaps))]
        torch.testing.assert_close(z_q[b, :, f, w], nearest, atol=1e-6, rtol=0)
    assert commitment.item() == pytest.approx(((z - z_q) ** 2).mean().item(), rel=1e-4)
    tokens = q.distances(z).argmin(-1)
    torch.testing.assert_close(q.look_up(tokens, z.shape), z_q, atol=1e-6, rtol=0)
    weight = torch.randn(z.shape, generator=rng(1))
    (grad,) = torch.autograd.grad((z_q * weight).sum(), z, retain_graph=True)
    torch.testing.assert_close(grad, weight)
    (grad,) = torch.autograd.grad(commitment, z)
    torch.testing.assert_close(grad, 2 * (z - z_q).detach() / z.numel(), atol=1e-6, rtol=1e-4)


def test_ema_update_by_hand_on_two_points():
    q = Quantiser(3, 1, decay=0.9)
    q.codes.copy_(torch.tensor([[0.0], [10.0], [-50.0]]))
    q.total.copy_(q.codes)
    z = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)  # both go to code 0
    z_q, commitment = q.train()(z)
    assert z_q.flatten().tolist() == [0, 0] and commitment.item() == pytest.approx(2.5)
    n, m = np.array([0.9 + 0.1 * 2, 0.9, 0.9]), np.array([0.1 * 3, 0.9 * 10, 0.9 * -50])
    want = m / ((n + 1e-5) / (n.sum() + 3e-5) * n.sum())
    np.testing.assert_allclose(q.codes.flatten(), want, rtol=1e-5)
    before = q.codes.clone()
    q.eval()(z)
    assert torch.equal(q.codes, before)


LOSSES = [
    dict(ssl="none"),
    dict(ssl="none", augment="warp", aug_weight=0.3),
    dict(ssl="barlow", augment="none"),
    dict(ssl="barlow", augment="slice", aug_weight=0.0),
    dict(ssl="barlow", augment="slice", ssl_weights=(7, 0.1)),
    dict(ssl="vibcreg", augment="warp"),
    dict(ssl="vicreg", augment="gauss", ssl_weights=(0.1, 1, 2, 3)),
]


@pytest.mark.parametrize("options", LOSSES, ids=lambda o: "-".join(map(str, o.values())))
def test_stage_one_loss_by_hand_and_gradients(options):
    """Each part as its sentence says, their weighted sum, and no parameter without a gradient."""
    model, x = NCVQVAE(**options, **SMALL), torch.randn(80, 20, 2, generator=rng())
    with common.seeded(0, "cpu"):
        net = model.build(20, 2).eval()
    xa = second_view.AUGMENT[model.augment](x, rng(4))
    parts = model.parts(net, x, rng(4))

    def squares(z, x):
        xhat, uhat = net.decode(z, 20)
        return ((xhat - x) ** 2).mean() + ((uhat - nc_vqvae.stft(x)) ** 2).mean()

    with torch.no_grad():
        z, za = net.encoder(nc_vqvae.stft(x)), net.encoder(nc_vqvae.stft(xa))
        z_q = net.quantiser.look_up(net.quantiser.distances(z).argmin(-1), z.shape)
        want, weights = {"rec": squares(z_q, x), "vq": ((z - z_q) ** 2).mean()}, {}
        weights["rec_aug"] = options.get("aug_weight", 0.1 if model.ssl != "none" else 0)
        if weights["rec_aug"]:
            want["rec_aug"] = squares(za, xa)
        if model.ssl != "none":
            y, ya = net.project(z_q), net.project(za)
            if model.ssl == "vibcreg":
                y, ya = second_view.iter_norm(y), second_view.iter_norm(ya)
            loss, given = second_view.SSL[model.ssl]
            weights["ssl"], *terms = options.get("ssl_weights", given)
            want["ssl"] = loss(y, ya, *terms)
        want["loss"] = sum(weights.get(name, 1) * value for name, value in want.items())
    assert parts.keys() == want.keys()
    for name, value in want.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-4), name
    model.parts(net.train(), x, rng(4))["loss"].backward()
    for name, p in net.named_parameters():
        # A bias straight before a batch mean is taken off has no effect.
        assert p.grad is not None and (p.grad.abs().sum() > 0 or name.endswith("bias")), name


# ---- both stages --------------------------------------------------------------------------------


def test_generate_is_the_decoded_look_up_in_the_units_of_the_data(fitted, monkeypatch):
    model, X, _ = fitted
    tokens = torch.zeros(3, model.prior_.n_tokens, dtype=torch.int64)
    z = model.net_.quantiser.codes[0].reshape(1, 8, 1, 1).expand(3, 8, 5, tokens.shape[1] // 5)
    want = model.net_.decode(z, 20)[0].detach().numpy() * X.std() + X.mean()
    # The prior may tune its own copy of the codes; a series is written with those of stage 1.
    monkeypatch.setitem(model.prior_.embed._parameters, "weight", model.prior_.embed.weight + 9)
    asked = []

    def decode(prior, labels, *_, **__):
        asked.append(labels.tolist())
        return tokens

    monkeypatch.setattr(maskgit, "decode", decode)
    np.testing.assert_allclose(model.generate(3), want, rtol=1e-3)
    model.generate(3, 1)
    model.generate(3, [1, 0, 1])
    assert asked == [[2, 2, 2], [1, 1, 1], [1, 0, 1]]  # 2: no class


def test_transform_encode_and_decode_read_the_codes_and_change_nothing(fitted):
    model, X, _ = fitted
    before = {k: v.clone() for k, v in model.net_.state_dict().items()}
    H, tokens = model.transform(X), model.encode(X)
    x = torch.from_numpy(((X - X.mean()) / X.std()).astype(np.float32))
    with torch.no_grad():
        z_q, _ = model.net_.quantiser(model.net_.encoder(nc_vqvae.stft(x)))
        back = model.net_.decode(z_q, 20)[0].numpy() * X.std() + X.mean()
    np.testing.assert_allclose(H, z_q.mean((2, 3)), atol=1e-4)
    np.testing.assert_allclose(H, model.net_.quantiser.codes[tokens].mean(1), atol=1e-4)
    np.testing.assert_allclose(model.decode(tokens), back, rtol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())


@pytest.mark.parametrize("codes", maskgit.CODES)
def test_prior_learns_from_draws_near_the_nearest_code(codes, monkeypatch):
    X, y = series()
    model, seen, learn = NCVQVAE(epochs=1, **SMALL).fit(X), [], maskgit.fit_prior

    def fit_prior(prior, *rest):
        seen.append((prior.embed.weight.clone(), *rest))
        return learn(prior, *rest)

    monkeypatch.setattr(maskgit, "fit_prior", fit_prior)
    before = {k: v.clone() for k, v in model.net_.state_dict().items()}
    labels = np.array(["b", "a"])[y]
    model.fit_prior(X, labels, epochs=2, lr=0.1, dim=16, n_layers=1, codes=codes)
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())
    start, token_logits, given, *_ = seen[0]
    learned = before["quantiser.codes"]
    assert torch.equal(start, learned) == (codes != "random")
    assert torch.equal(start, model.prior_.embed.weight) == (codes == "frozen")
    assert 0.5 < start.std() / learned.std() < 2
    assert model.classes_ == ["a", "b"] and given.tolist() == (1 - y).tolist()
    x = torch.from_numpy(((X - X.mean()) / X.std()).astype(np.float32))
    with torch.no_grad():
        z = model.net_.encoder(nc_vqvae.stft(x)).flatten(2)  # (N, d, n)
    for i, j in ((0, 0), (5, 3), (11, 9)):
        gaps = ((z[i, :, j] - learned) ** 2).sum(1)
        torch.testing.assert_close(token_logits[i, j], -gaps, atol=1e-3, rtol=1e-3)


def test_drawing_repeats_by_seed_and_keeps_missing_and_constant_variates_apart():
    X, y = series(D=3)
    X[..., 2], X[0, :5, 0] = 4, np.nan
    state, drawn = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        model = NCVQVAE(2, epochs=1, seed=seed, readout="continuous", **SMALL).fit(X)
        drawn.append(model.fit_prior(X, y, epochs=1, dim=16, n_layers=1).generate(4))
        assert np.isfinite(model.embedding_).all() and np.isfinite(drawn[-1]).all()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(model.generate(4, seed=5), model.generate(4, seed=6))
    np.testing.assert_allclose(drawn[0][..., 2], 4, atol=1e-5)
    assert 30 < drawn[0][..., 0].mean() < 70  # the data lie around 50
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError, match="fit_prior"):  # a new fit drops the prior of old codes
        model.fit(X).generate(1)


def test_vq_errors_are_one_clear_line(fitted):
    model, X, _ = fitted
    for call, message in [
        (lambda: NCVQVAE(ssl="simclr"), "use one of barlow, vibcreg, vicreg, none"),
        (lambda: NCVQVAE(ssl_weights=(1,)), "need 2 for ssl 'barlow'"),
        (lambda: NCVQVAE(**SMALL).fit(X[:, :4]), "series of 4 steps"),
        (lambda: model.generate(2, "cat"), r"unknown among them: \['cat'\]; need 2 out of"),
        (lambda: model.fit_prior(X, dim=15), "dim 15: need an even number"),
        (lambda: model.fit_prior(X, codes="new"), "use one of frozen, tuned, random"),
        (lambda: model.fit_prior(X, [0, 1]), r"labels of shape \(2,\) for 12 series"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


# ---- prior --------------------------------------------------------------------------------------


def small_prior(n=9, n_classes=2, K=5, dim=8, codes="tuned"):
    with common.seeded(0, "cpu"):
        return maskgit.Prior(torch.randn(K, 4), n, n_classes, dim=dim, n_layers=2, codes=codes)


def test_decoding_keeps_what_it_knows_by_the_schedule_and_leaves_no_masked_token():
    counts = [maskgit.n_masked(step / 10, 45) for step in range(11)]
    assert counts[0] == 45 and counts[-1] == 0 and counts == sorted(counts, reverse=True)
    assert maskgit.n_masked(0.5, 100) == 70  # cos(45 degrees)
    prior, trace, seen = small_prior(), [], []
    prior.register_forward_pre_hook(lambda _, args: seen.append((args[0].clone(), args[1].clone())))
    tokens = maskgit.decode(prior.eval(), torch.tensor([0, 1, 2]), rng(), steps=6, trace=trace)
    assert tokens.shape == (3, 9) and tokens.min() >= 0 and tokens.max() < 5
    assert trace[-1].all() and not seen[0][1].any()
    left = [(~known).sum(1).tolist() for known in trace]
    assert left == [[maskgit.n_masked(j / 6, 9)] * 3 for j in range(1, 7)]
    for (before, known), (after, known_after) in zip(seen, seen[1:]):
        assert (known_after | ~known).all()  # True = keep: once kept, always kept
        assert (after[known] == before[known]).all()


def test_decoding_keeps_the_surest_and_its_noise_falls(monkeypatch):
    """Position i is uniform over 2^i codes: log p = -i ln 2 whatever is drawn, against noise."""
    allowed = torch.arange(128) < 2 ** torch.arange(8)[:, None]  # (n, K)
    logits = torch.zeros(8, 128).masked_fill(~allowed, -math.inf)[None]
    noise, trace = math.log(2) * torch.arange(8.0)[None], []

    class Stub(SimpleNamespace):
        __call__ = staticmethod(lambda *_: logits)

    def gumbel(shape, _):
        return torch.zeros(shape) if len(shape) == 3 else noise

    monkeypatch.setattr(maskgit, "gumbel", gumbel)
    stub = Stub(n_tokens=8, n_classes=0)
    maskgit.decode(stub, torch.tensor([0]), rng(), steps=4, temperature=1.6, trace=trace)
    kept = [known[0].nonzero().flatten().tolist() for known in trace]
    # 8 cos(pi / 8) = 7.4, then 5.7, 3.1, 0 are asked again; the noise weighs 1.2, .8, .4, 0
    assert kept == [[7], [0, 1, 7], [0, 1, 2, 3, 7], [*range(8)]]


def test_prior_hides_what_is_masked_hears_the_class_and_counts_hidden_tokens_only():
    prior, label = small_prior().eval(), torch.tensor([0])
    tokens, known = torch.randint(5, (1, 9), generator=rng()), torch.arange(9)[None] < 4
    hidden, seen = tokens.clone(), tokens.clone()
    hidden[~known], seen[0, 0] = (hidden[~known] + 1) % 5, (seen[0, 0] + 1) % 5
    out = prior(tokens, known, label)
    assert torch.equal(out, prior(hidden, known, label))
    assert not torch.allclose(out[0, 8], prior(seen, known, label)[0, 8])
    assert not torch.allclose(out, prior(tokens, known, label + 1))
    logits = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [0.0, math.log(3)]]])
    known = torch.tensor([[False, True, False]])
    loss = maskgit.prior_loss(lambda *_: logits, torch.tensor([[0, 1, 1]]), None, known)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-6)


def test_training_masks_have_the_cosine_share_and_draws_follow_the_softmax():
    hidden = ~maskgit.random_known(4000, 20, rng())
    assert hidden.sum(1).min() >= 1 and hidden.sum(1).max() in (19, 20)
    taus = (np.arange(10000) + 0.5) / 10000
    want = np.maximum(np.floor(20 * np.cos(np.pi * taus / 2)), 1).mean()
    assert hidden.sum(1).float().mean().item() == pytest.approx(want, abs=0.3)
    logits = torch.tensor([0.5, 0.2, 0.3]).log().expand(20000, 3)
    share = maskgit.draw(logits, rng()).bincount(minlength=3) / 20000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.2, 0.3]), atol=0.015, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("codes", maskgit.CODES)
def test_prior_learns_each_class_and_guidance_ignores_or_follows_it(codes):
    """Two classes, one sequence each: by class the prior must write it, else either of them."""
    words = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3], [4, 4, 3, 3, 2, 2, 1, 1, 0]])
    logits = 50.0 * functional.one_hot(words, 5).float().repeat(8, 1, 1)  # (16, 9, 5)
    labels, prior = torch.arange(16) % 2, small_prior(dim=16, codes=codes)
    history = maskgit.fit_prior(prior, logits, labels, 300, 16, 5e-3, rng())
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    known = maskgit.random_known(16, 9, rng())
    maskgit.prior_loss(prior, words[labels], labels, known).backward()
    idle = [name for name, p in prior.named_parameters() if p.grad is None]
    assert idle == (["embed.weight"] if codes == "frozen" else [])
    out = maskgit.decode(prior, labels, rng(1), temperature=0.5)
    assert (out == words[labels]).float().mean() > 0.95
    free = maskgit.decode(prior, labels, rng(1), temperature=0.5, guidance=0)
    either = (free[:, None] == words).float().mean(2).max(1).values
    assert either.mean() > 0.8 and 0.2 < (free == words[labels]).float().mean() < 0.9
