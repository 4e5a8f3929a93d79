"""Tests of NC-VQVAE, its MaskGIT prior and its scores, by hand-computed values and loop twins."""
import itertools
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from related import generation_scores as gs
from related import maskgit, nc_vqvae
from related.nc_vqvae import NCVQVAE, Quantiser

SMALL = {"dim": 8, "n_codes": 6, "n_res": 1, "width": 12, "batch_size": 8}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def series(N=12, T=20, D=1, seed=0):
    """Noisy sines of two frequencies in turn, (N, T, D) float32, labels (N,)."""
    r, y = np.random.default_rng(seed), np.arange(N) % 2
    t = np.arange(T)[None, :, None]
    X = np.sin(t / (2 + 2 * y[:, None, None]) + r.uniform(0, 6, (N, 1, 1))) + 0.1 * r.normal(size=(N, T, D))
    return (50 + 7 * X).astype(np.float32), y


@pytest.fixture(scope="module")
def fitted():
    X, y = series()
    return NCVQVAE(2, epochs=2, **SMALL).fit(X).fit_prior(X, y, epochs=2, dim=16, n_layers=1), X, y


# ---- time-frequency and augmentations -----------------------------------------------------------

@pytest.mark.parametrize("T, D", [(5, 1), (24, 1), (25, 3), (100, 6)])
def test_istft_undoes_stft(T, D):
    x = torch.randn(3, T, D, generator=rng())
    u = nc_vqvae.stft(x)
    assert u.shape == (3, 2 * D, 5, T // 2 + 1)
    torch.testing.assert_close(nc_vqvae.istft(u, T), x, atol=1e-5, rtol=1e-5)


def test_stft_is_the_windowed_fourier_sum():
    x = torch.randn(1, 20, 2, generator=rng())
    u = nc_vqvae.stft(x)
    window = [0.5 - 0.5 * math.cos(2 * math.pi * k / 8) for k in range(8)]
    for d, f, frame in itertools.product(range(2), range(5), (3, 5)):  # frames off the borders
        terms = [window[k] * x[0, 2 * frame - 4 + k, d].item() * np.exp(-2j * np.pi * f * k / 8) for k in range(8)]
        assert complex(u[0, 2 * d, f, frame], u[0, 2 * d + 1, f, frame]) == pytest.approx(sum(terms), abs=1e-4)


def test_slice_shuffle_moves_at_most_four_whole_pieces_of_all_variates_alike():
    x = torch.arange(60.).reshape(1, 30, 2).repeat(200, 1, 1)
    out = nc_vqvae.slice_shuffle(x, rng())
    step = out[..., 0] / 2  # where each step came from
    assert (step.sort(dim=1).values == torch.arange(30.)).all()
    assert (out[..., 1] == out[..., 0] + 1).all()
    breaks = (step.diff(dim=1) != 1).sum(1)
    assert breaks.max() == 3 and len({tuple(row) for row in step.tolist()}) > 150


def test_window_warp_of_a_ramp_by_its_slopes():
    """The warped clock of a ramp has slope c/s inside the window and c outside, c = total length / T."""
    T = 401
    x = torch.arange(float(T)).reshape(1, T, 1).repeat(100, 1, 2)
    g = rng(3)
    out = nc_vqvae.window_warp(x, g)
    g = rng(3)  # the same draws again
    gain = 1 + 0.2 * torch.randn(100, 1, 1, generator=g)[:, 0, 0]
    start = torch.rand(100, 1, generator=g)[:, 0] * (T - 1 - 0.4 * T)
    stretch = 0.9 + 1.1 * torch.rand(100, 1, generator=g)[:, 0]
    assert torch.equal(out[..., 0], out[..., 1])
    ramp = out[..., 0] / gain[:, None]
    torch.testing.assert_close(ramp[:, 0], torch.zeros(100), atol=1e-3, rtol=0)
    torch.testing.assert_close(ramp[:, -1], torch.full((100,), T - 1.), atol=2e-3, rtol=0)
    assert (ramp.diff(dim=1) > 0).all()
    c = 1 + (stretch - 1) * 0.4 * T / (T - 1)
    slope = ramp.diff(dim=1)
    middle = ((start + stretch * 0.2 * T) / c).long()  # a step in the middle of the window
    torch.testing.assert_close(slope.gather(1, middle[:, None])[:, 0], c / stretch, atol=1e-3, rtol=1e-3)
    after = start > 10  # a step before the window
    torch.testing.assert_close(slope[after, 1], c[after], atol=1e-3, rtol=1e-3)


def test_gauss_adds_noise_of_005_and_no_augmentation_touches_its_input():
    x = torch.zeros(50, 100, 2)
    assert nc_vqvae.gauss(x, rng()).std().item() == pytest.approx(0.05, rel=0.03)
    for augment in nc_vqvae.AUGMENT.values():
        x = torch.randn(4, 30, 2, generator=rng())
        before = x.clone()
        assert augment(x, rng()).shape == x.shape and torch.equal(x, before)


# ---- non-contrastive losses ---------------------------------------------------------------------

def test_barlow_twins_by_hand():
    """y: two features, uncorrelated, each +-1; ya: feature 1 the same, feature 2 a copy of feature 1."""
    y = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]])
    assert nc_vqvae.barlow_twins(y, y).item() == pytest.approx(0, abs=1e-8)
    ya = 3 * y[:, [0, 0]] + 5  # C = [[1, 1], [0, 0]]
    assert nc_vqvae.barlow_twins(y, ya).item() == pytest.approx((1 + 0.005) / 2, abs=1e-4)
    assert nc_vqvae.barlow_twins(y, -y).item() == pytest.approx((4 + 4) / 2, abs=1e-3)


def test_vicreg_by_hand():
    y = torch.tensor([[1., 2.], [-1., -2.]])  # variance 2 and 8, covariance 4
    want = 25 * 0 + 25 * 0 + 2 * (4 ** 2 + 4 ** 2) / 2
    assert nc_vqvae.vicreg(y, y).item() == pytest.approx(want, rel=1e-5)
    small = 0.1 * y  # variance .02 and .08, covariance .04
    hinge = (2 - math.sqrt(0.02 + 1e-4) - math.sqrt(0.08 + 1e-4)) / 2
    gap = (0.9 ** 2 * 1 + 0.9 ** 2 * 4) / 2
    want = 25 * gap + 25 * hinge + 16 + 0.04 ** 2
    assert nc_vqvae.vicreg(y, small).item() == pytest.approx(want, rel=1e-5)


def test_vibcreg_by_hand_and_its_covariance_ignores_scale():
    y = torch.tensor([[1., 2.], [-1., -2.]])  # correlation 1: two of four entries
    assert nc_vqvae.vibcreg(y, y).item() == pytest.approx(100 * 2 * 2 / 4, rel=1e-5)
    assert nc_vqvae.vibcreg(7 * y, 7 * y).item() == pytest.approx(100, rel=1e-5)
    y = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]])  # no correlation, variance 4/3
    assert nc_vqvae.vibcreg(y, y + 0.5).item() == pytest.approx(25 * 0.25, rel=1e-5)


def test_iter_norm_whitens_each_group():
    mix = torch.randn(8, 8, generator=rng()) * 0.3 + torch.eye(8)
    y = torch.randn(4000, 8, generator=rng(1)).double() @ mix.double() + 5
    for steps, atol in ((5, 0.03), (10, 1e-4)):  # five are the paper's
        out = nc_vqvae.iter_norm(y, steps=steps, group=4)
        for part in out.split(4, dim=1):
            torch.testing.assert_close(part.T @ part / 4000, torch.eye(4).double(), atol=atol, rtol=0)
    torch.testing.assert_close(out.mean(0), torch.zeros(8).double(), atol=1e-9, rtol=0)
    S = y.T.cov(correction=0)[:4, :4] + 1e-5 * torch.eye(4)
    value, vector = torch.linalg.eigh(S)
    want = (y - y.mean(0))[:, :4] @ (vector * value ** -0.5) @ vector.T
    torch.testing.assert_close(out[:, :4], want, atol=1e-3, rtol=0)


# ---- quantiser ----------------------------------------------------------------------------------

def test_quantiser_returns_nearest_codes_with_straight_through_gradient():
    q = Quantiser(5, 3).eval()
    z = torch.randn(2, 3, 5, 4, generator=rng(), requires_grad=True)
    z_q, commitment = q(z)
    for b, f, w in itertools.product(range(2), range(5), range(4)):
        gaps = [((z[b, :, f, w] - code) ** 2).sum().item() for code in q.codes]
        torch.testing.assert_close(z_q[b, :, f, w], q.codes[int(np.argmin(gaps))], atol=1e-6, rtol=0)
    assert commitment.item() == pytest.approx(((z - z_q) ** 2).mean().item(), rel=1e-4)
    weight = torch.randn(z.shape, generator=rng(1))
    grad, = torch.autograd.grad((z_q * weight).sum(), z, retain_graph=True)
    torch.testing.assert_close(grad, weight)
    grad, = torch.autograd.grad(commitment, z)
    torch.testing.assert_close(grad, 2 * (z - z_q).detach() / z.numel(), atol=1e-6, rtol=1e-4)


def test_ema_update_by_hand_on_two_points():
    q = Quantiser(3, 1, decay=0.9)
    q.codes.copy_(torch.tensor([[0.], [10.], [-50.]]))
    q.total.copy_(q.codes)
    z = torch.tensor([1., 2.]).reshape(1, 1, 1, 2)  # both go to code 0
    z_q, commitment = q.train()(z)
    assert z_q.flatten().tolist() == [0, 0] and commitment.item() == pytest.approx(2.5)
    n = [0.9 + 0.1 * 2, 0.9, 0.9]
    m = [0.9 * 0 + 0.1 * 3, 0.9 * 10, 0.9 * -50]
    mass = sum(n)
    want = [mk / ((nk + 1e-5) / (mass + 3e-5) * mass) for mk, nk in zip(m, n)]
    torch.testing.assert_close(q.codes.flatten(), torch.tensor(want))
    before = q.codes.clone()
    q.eval()(z)
    assert torch.equal(q.codes, before)


def test_tokens_look_up_and_distances_share_one_order():
    q = Quantiser(7, 4).eval()
    z = torch.randn(2, 4, 5, 3, generator=rng())
    tokens = q.distances(z).argmin(-1)
    assert tokens.shape == (2, 15)
    torch.testing.assert_close(q.look_up(tokens, z.shape), q(z)[0], atol=1e-6, rtol=0)


# ---- network and loss ---------------------------------------------------------------------------

@pytest.mark.parametrize("T, tokens", [(500, 75), (150, 45), (251, 35), (427, 65), (24, 30), (100, 60), (8, 10)])
def test_number_of_tokens_as_published(T, tokens):
    net = nc_vqvae.Net(T, 1, 4, 3, 1, 0).eval()
    z = net.encoder(nc_vqvae.stft(torch.zeros(2, T, 1)))
    assert z.shape[2] * z.shape[3] == tokens
    assert net.decode(z, T)[0].shape == (2, T, 1)


@pytest.mark.parametrize("ssl, augment, D", [("barlow", "slice", 1), ("barlow", "gauss", 6), ("vibcreg", "warp", 6),
                                             ("vicreg", "warp", 1), ("none", "slice", 6)])
def test_every_parameter_gets_a_gradient_and_parts_add_up(ssl, augment, D):
    model = NCVQVAE(ssl=ssl, augment=augment, **SMALL)
    model.generator_ = rng()
    with nc_vqvae.seeded(0, "cpu"):
        net = model.build(20, D).train()
    x = torch.randn(16, 20, D, generator=rng())
    loss, parts = model.loss(net, x)
    loss.backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias straight before a batch mean is taken off has no effect.
    assert [n for n in idle if not n.endswith("bias")] == []
    assert all(p.grad is not None for p in net.parameters())
    weight = {"barlow": 1, "vibcreg": 0.01, "vicreg": 0.01, "none": 0}[ssl]
    want = parts["rec"] + parts["vq"] + 0.1 * parts.get("rec_aug", 0) + weight * parts.get("ssl", 0)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    assert set(parts) == ({"rec", "vq"} if ssl == "none" else {"rec", "vq", "rec_aug", "ssl"})


def test_reconstruction_falls_and_ssl_pulls_the_views_together():
    X, _ = series(N=16)
    runs = [NCVQVAE(epochs=30, lr=3e-3, seed=seed, **SMALL).fit(X).history_ for seed in range(3)]
    for name in ("rec", "ssl"):  # means, because one batch of so few series says little
        first, last = (np.mean([[r[name] for r in run[part]] for run in runs]) for part in (slice(5), slice(-10, None)))
        assert last < 0.7 * first


# ---- estimator ----------------------------------------------------------------------------------

@pytest.mark.parametrize("D", [1, 6])
def test_shapes_units_and_labels(D):
    X, y = series(D=D)
    model = NCVQVAE(2, epochs=1, **SMALL)
    labels = model.fit_predict(X)
    assert labels.shape == (12,) and set(labels) <= {0, 1}
    assert model.transform(X).shape == (12, 8) and model.transform(X).dtype == np.float32
    out = model.fit_prior(X, y, epochs=1, dim=16, n_layers=1).generate(5, [0, 1, 1, 0, 1])
    assert out.shape == (5, 20, D) and out.dtype == np.float32 and np.isfinite(out).all()
    assert 30 < out.mean() < 70  # the data lie around 50


def test_generate_is_the_decoded_look_up_in_the_units_of_the_data(fitted, monkeypatch):
    model, X, _ = fitted
    tokens = torch.zeros(3, model.prior_.n_tokens, dtype=torch.int64)
    z = model.net_.quantiser.codes[0].reshape(1, 8, 1, 1).expand(3, *model.z_shape_)
    want = model.net_.decode(z, 20)[0].detach().numpy() * X.std() + X.mean()
    asked = []
    monkeypatch.setattr(maskgit, "decode", lambda prior, labels, *_, **__: asked.append(labels.tolist()) or tokens)
    np.testing.assert_allclose(model.generate(3), want, rtol=1e-3)
    model.generate(3, 1)
    model.generate(3, [1, 0, 1])
    assert asked == [[2, 2, 2], [1, 1, 1], [1, 0, 1]]  # 2: no class


def test_transform_is_the_mean_code_and_changes_nothing(fitted):
    model, X, _ = fitted
    before = {k: v.clone() for k, v in model.net_.state_dict().items()}
    H = model.transform(X)
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())
    np.testing.assert_array_equal(H, model.transform(X))
    np.testing.assert_allclose(H[3:4], model.transform(X[3:4]), atol=1e-5)  # no batch statistics
    x = torch.from_numpy(((X - X.mean()) / X.std()).astype(np.float32))
    tokens = model.net_.quantiser.distances(model.net_.encoder(nc_vqvae.stft(x))).argmin(-1)
    np.testing.assert_allclose(H, model.net_.quantiser.codes[tokens].mean(1), atol=1e-4)
    gs.probe(model, SimpleNamespace(X=X, y=np.arange(12) % 2), SimpleNamespace(X=X, y=np.arange(12) % 2))
    assert model.readout == "codes"
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())


def test_prior_learns_from_draws_near_the_nearest_code_and_leaves_stage_one_alone(monkeypatch):
    X, y = series()
    model, seen, learn = NCVQVAE(epochs=1, **SMALL).fit(X), [], maskgit.fit_prior
    monkeypatch.setattr(maskgit, "fit_prior", lambda *args: seen.append(args) or learn(*args))
    before = {k: v.clone() for k, v in model.net_.state_dict().items()}
    model.fit_prior(X, np.array(["b", "a"])[y], epochs=2, lr=0.1, dim=16, n_layers=1)
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())
    _, token_logits, labels, *_ = seen[0]
    assert model.classes_ == ["a", "b"] and labels.tolist() == (1 - y).tolist()
    x = torch.from_numpy(((X - X.mean()) / X.std()).astype(np.float32))
    with torch.no_grad():
        z = model.net_.encoder(nc_vqvae.stft(x)).flatten(2)  # (N, d, n)
    for i, j in ((0, 0), (5, 3), (11, 9)):
        gaps = ((z[i, :, j] - before["quantiser.codes"]) ** 2).sum(1)
        torch.testing.assert_close(token_logits[i, j], -gaps, atol=1e-3, rtol=1e-3)


def test_seeds_repeat_and_the_callers_rng_and_data_stay():
    X, y = series()
    copy, state, np_state = X.copy(), torch.get_rng_state(), np.random.get_state()[1].copy()
    runs = []
    for seed in (0, 0, 1):
        model = NCVQVAE(2, epochs=1, seed=seed, ssl="vibcreg", augment="warp", **SMALL).fit(X)
        runs.append((model.embedding_, model.fit_prior(X, y, epochs=1, dim=16, n_layers=1).generate(4)))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][0], runs[2][0]) and not np.array_equal(runs[0][1], runs[2][1])
    assert not np.array_equal(model.generate(4, seed=5), model.generate(4, seed=6))
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == np_state).all()
    assert np.array_equal(X, copy)


def test_missing_and_constant_variates_and_readout():
    X, y = series(D=3)
    X[..., 2], X[0, :5, 0] = 4, np.nan
    model = NCVQVAE(2, epochs=1, readout="continuous", **SMALL).fit(X)
    assert np.isfinite(model.embedding_).all()
    out = model.fit_prior(X, epochs=1, dim=16, n_layers=1).generate(3)
    np.testing.assert_allclose(out[..., 2], 4, atol=1e-5)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("call, message", [
    (lambda m, X: NCVQVAE(ssl="simclr"), "ssl 'simclr' is unknown; use one of barlow, vibcreg, vicreg, none"),
    (lambda m, X: NCVQVAE(augment="flip"), "augment 'flip' is unknown"),
    (lambda m, X: NCVQVAE(readout="raw"), "readout 'raw' is unknown"),
    (lambda m, X: NCVQVAE(**SMALL).fit(X[:, :4]), "series of 4 steps"),
    (lambda m, X: m.generate(2, "cat"), r"unknown among them: \['cat'\]; need 2 out of \['0', '1'\]"),
    (lambda m, X: m.generate(3, [0, 1]), "2 labels, unknown among them: none; need 3"),
    (lambda m, X: m.fit_prior(X, [0, 1]), "2 labels for 12 series"),
])
def test_errors_are_one_clear_line(fitted, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(fitted[0], fitted[1])
    assert "\n" not in str(error.value)


def test_generate_before_fit_prior_says_so():
    with pytest.raises(RuntimeError, match="fit_prior"):
        NCVQVAE(epochs=0, **SMALL).fit(series()[0]).generate(2)


# ---- prior --------------------------------------------------------------------------------------

def small_prior(n=9, n_classes=2, K=5, dim=8):
    with nc_vqvae.seeded(0, "cpu"):
        return maskgit.Prior(torch.randn(K, 4), n, n_classes, dim=dim, n_layers=2)


def test_schedule_starts_with_all_and_falls_to_zero():
    for n in (1, 7, 45, 1000):
        counts = [maskgit.n_masked(step / 10, n) for step in range(11)]
        assert counts[0] == n and counts[-1] == 0 and counts == sorted(counts, reverse=True)
    assert maskgit.n_masked(0.5, 100) == 70  # cos(45 degrees)


def test_decoding_keeps_what_it_knows_and_leaves_no_masked_token():
    prior, trace, seen = small_prior(), [], []
    prior.register_forward_pre_hook(lambda _, args: seen.append((args[0].clone(), args[1].clone())))
    tokens = maskgit.decode(prior.eval(), torch.tensor([0, 1, 2]), rng(), steps=6, trace=trace)
    assert tokens.shape == (3, 9) and tokens.min() >= 0 and tokens.max() < 5
    assert trace[-1].all() and not seen[0][1].any()
    assert [(~known).sum(1).tolist() for known in trace] == [[maskgit.n_masked(j / 6, 9)] * 3 for j in range(1, 7)]
    for (before, known), (after, known_after) in zip(seen, seen[1:]):
        assert (known_after | ~known).all()  # True = keep: once kept, always kept
        assert (after[known] == before[known]).all()
    assert (tokens[seen[-1][1]] == seen[-1][0][seen[-1][1]]).all()


def test_prior_hides_what_is_masked_and_hears_the_class():
    prior = small_prior().eval()
    tokens, known = torch.randint(5, (1, 9), generator=rng()), torch.arange(9)[None] < 4
    other = tokens.clone()
    other[~known] = (other[~known] + 1) % 5
    label = torch.tensor([0])
    assert torch.equal(prior(tokens, known, label), prior(other, known, label))
    other = tokens.clone()
    other[0, 0] = (other[0, 0] + 1) % 5
    assert not torch.allclose(prior(tokens, known, label)[0, 8], prior(other, known, label)[0, 8])
    assert not torch.allclose(prior(tokens, known, label), prior(tokens, known, label + 1))


def test_prior_loss_counts_hidden_tokens_only():
    prior = lambda tokens, known, labels: torch.tensor([[[0., 0.], [9., 0.], [0., math.log(3)]]])
    known = torch.tensor([[False, True, False]])
    loss = maskgit.prior_loss(prior, torch.tensor([[0, 1, 1]]), None, known)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-6)


def test_training_masks_have_the_cosine_share():
    known = maskgit.random_known(4000, 20, rng())
    hidden = (~known).sum(1)
    assert hidden.min() >= 1 and hidden.max() == 20 - (hidden.max() < 20).item()
    taus = (np.arange(100000) + 0.5) / 100000
    want = np.maximum(np.floor(20 * np.cos(np.pi * taus / 2)), 1).mean()
    assert hidden.float().mean().item() == pytest.approx(want, abs=0.3)
    assert (~known).float().mean(0).std() < 0.02  # every position alike


def test_draw_follows_the_softmax():
    logits = torch.tensor([0.5, 0.2, 0.3]).log().expand(20000, 3)
    share = maskgit.draw(logits, rng()).bincount(minlength=3) / 20000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.2, 0.3]), atol=0.015, rtol=0)


@pytest.mark.parametrize("n_classes", [0, 2])
def test_prior_parameters_get_gradients(n_classes):
    prior = small_prior(n_classes=n_classes)
    known = maskgit.random_known(8, 9, rng())
    tokens, labels = torch.randint(5, (8, 9), generator=rng()), torch.arange(8) % (n_classes + 1)
    maskgit.prior_loss(prior, tokens, labels, known).backward()
    assert [name for name, p in prior.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_prior_learns_the_sequences_of_each_class_and_guidance_ignores_or_follows_it():
    """Two classes, one sequence each: by class the prior must write that sequence, without one either."""
    words = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3], [4, 4, 3, 3, 2, 2, 1, 1, 0]])
    logits = 50. * F.one_hot(words, 5).float().repeat(8, 1, 1)  # (16, 9, 5)
    labels, prior = torch.arange(16) % 2, small_prior(dim=16)
    codes = prior.embed.weight.detach().clone()
    history = maskgit.fit_prior(prior, logits, labels, 300, 16, 5e-3, rng())
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and not torch.equal(prior.embed.weight, codes)
    out = maskgit.decode(prior, labels, rng(1), temperature=0.5)
    assert (out == words[labels]).float().mean() > 0.95
    free = maskgit.decode(prior, labels, rng(1), temperature=0.5, guidance=0)
    either = (free[:, None] == words).float().mean(2).max(1).values
    assert either.mean() > 0.8 and 0.2 < (free == words[labels]).float().mean() < 0.9


# ---- scores -------------------------------------------------------------------------------------

def test_fid_against_the_closed_form_and_scipy():
    r = np.random.default_rng(0)
    A = r.normal(size=(500, 3)) @ r.normal(size=(3, 3)) + 2
    B = r.normal(size=(400, 3)) * [1, 2, 3]
    assert gs.fid(A, A) == pytest.approx(0, abs=1e-8)
    assert gs.fid(A, A + [3, 4, 0]) == pytest.approx(25)
    assert gs.fid(A[:, :2] * 0 + r.normal(size=(500, 2)), A[:, :2] * 0) == pytest.approx(2, abs=0.3)
    linalg = pytest.importorskip("scipy.linalg")
    S, R = np.cov(A.T), np.cov(B.T)
    want = ((A.mean(0) - B.mean(0)) ** 2).sum() + np.trace(S + R - 2 * linalg.sqrtm(S @ R).real)
    assert gs.fid(A, B) == pytest.approx(want, rel=1e-6)


def test_inception_score_runs_from_one_to_the_number_of_classes():
    assert gs.inception_score(np.full((6, 3), 1 / 3)) == pytest.approx(1)
    assert gs.inception_score(np.tile([[1., 0, 0]], (6, 1))) == pytest.approx(1)
    assert gs.inception_score(np.eye(3)) == pytest.approx(3)
    P = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert gs.inception_score(P) == pytest.approx(math.exp(0.9 * math.log(1.8) + 0.1 * math.log(0.2)))


def test_probes_against_scikit_learn():
    neighbors, linear = pytest.importorskip("sklearn.neighbors"), pytest.importorskip("sklearn.linear_model")
    r = np.random.default_rng(0)
    y, y_test = r.integers(0, 3, 60), r.integers(0, 3, 80)
    H, H_test = (r.normal(size=(len(v), 5)) + v[:, None] * [1, 0.5, 0, 0, 0] for v in (y, y_test))
    scale = lambda A: 2 * (A - H.min(0)) / (H.max(0) - H.min(0)) - 1
    peer = neighbors.KNeighborsClassifier(5).fit(scale(H), y)
    assert gs.knn_accuracy(H, y, H_test, y_test) == pytest.approx(peer.score(scale(H_test), y_test))
    scale = lambda A: (A - H.mean(0)) / H.std(0)
    peer = linear.LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(scale(H), y)
    assert gs.linear_accuracy(H, y, H_test, y_test) == pytest.approx(peer.score(scale(H_test), y_test), abs=1e-9)


def test_classifier_learns_repeats_and_leaves_the_rng():
    X, y = series(N=24)
    X, state = gs.ZScore(X)(X), torch.get_rng_state()
    nets = [gs.fit_fcn(X, y, epochs=15, device="cpu") for _ in range(2)]
    H, P = gs.fcn_outputs(nets[0], X)
    assert H.shape == (24, 32) and P.shape == (24, 2) and (P.argmax(1) == y).mean() > 0.9
    np.testing.assert_array_equal(H, gs.fcn_outputs(nets[1], X)[0])
    np.testing.assert_allclose(H[:1], gs.fcn_outputs(nets[0], X[:1])[0], atol=1e-5)  # no batch statistics
    np.testing.assert_allclose(P.sum(1), 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_judge_and_reference(fitted):
    model, X, y = fitted
    data = SimpleNamespace(X=X, y=y)
    fcn = gs.fit_fcn(gs.ZScore(X)(X), y, epochs=5, device="cpu")
    out, real = gs.judge(model, data, data, fcn, n=10), gs.reference(data, data, fcn)
    assert set(out) == {"fid", "is", "tstr"} and out["fid"] > 0 and 1 <= out["is"] <= 2
    assert real["fid"] == pytest.approx(0, abs=1e-6)
    parrot = SimpleNamespace(generate=lambda n, y=None: X)  # a generator that returns the data
    out = gs.judge(parrot, data, data, fcn)
    assert out == {k: pytest.approx(real[k], abs=1e-6) for k in ("fid", "is", "tstr")}


# ---- command ------------------------------------------------------------------------------------

def command(*args):
    return subprocess.run([sys.executable, str(ROOT / "related" / "nc_vqvae.py"), *args], capture_output=True,
                          text=True, cwd=ROOT, timeout=120)


def test_command_says_in_one_line_how_to_get_the_data(tmp_path):
    out = command("--data", "GunPoint", "--data-dir", str(tmp_path))
    assert out.returncode == 1 and "Traceback" not in out.stderr
    assert "pip install --no-deps aeon" in out.stderr and len(out.stderr.strip().splitlines()) == 1


def test_an_installed_aeon_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "aeon").mkdir()
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert nc_vqvae.data_dirs()[-1] == tmp_path / "aeon" / "datasets" / "data"
