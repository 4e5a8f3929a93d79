"""NC-VQVAE's first stage, its losses and the estimator, by hand-computed values and loop twins."""
import itertools
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from related import generation_scores as gs
from related import maskgit, nc_vqvae, second_view
from related.nc_vqvae import NCVQVAE, Quantiser

SMALL = {"dim": 8, "n_codes": 6, "n_res": 1, "projector_width": 12, "batch_size": 8}


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
    out = second_view.slice_shuffle(x, rng())
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
    out = second_view.window_warp(x, g)
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
    assert second_view.gauss(x, rng()).std().item() == pytest.approx(0.05, rel=0.03)
    for augment in second_view.AUGMENT.values():
        x = torch.randn(4, 30, 2, generator=rng())
        before = x.clone()
        assert augment(x, rng()).shape == x.shape and torch.equal(x, before)


# ---- non-contrastive losses ---------------------------------------------------------------------

def test_barlow_twins_by_hand():
    """y: two features, uncorrelated, each +-1; ya: feature 1 the same, feature 2 a copy of feature 1."""
    y = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]])
    assert second_view.barlow_twins(y, y).item() == pytest.approx(0, abs=1e-8)
    ya = 3 * y[:, [0, 0]] + 5  # C = [[1, 1], [0, 0]]
    assert second_view.barlow_twins(y, ya).item() == pytest.approx((1 + 0.005) / 2, abs=1e-4)
    assert second_view.barlow_twins(y, -y).item() == pytest.approx((4 + 4) / 2, abs=1e-3)


def test_vicreg_by_hand():
    y = torch.tensor([[1., 2.], [-1., -2.]])  # variance 2 and 8, covariance 4
    want = 25 * 0 + 25 * 0 + 2 * (4 ** 2 + 4 ** 2) / 2
    assert second_view.vicreg(y, y).item() == pytest.approx(want, rel=1e-5)
    small = 0.1 * y  # variance .02 and .08, covariance .04
    hinge = (2 - math.sqrt(0.02 + 1e-4) - math.sqrt(0.08 + 1e-4)) / 2
    gap = (0.9 ** 2 * 1 + 0.9 ** 2 * 4) / 2
    want = 25 * gap + 25 * hinge + 16 + 0.04 ** 2
    assert second_view.vicreg(y, small).item() == pytest.approx(want, rel=1e-5)


def test_vibcreg_by_hand_and_its_covariance_ignores_scale():
    y = torch.tensor([[1., 2.], [-1., -2.]])  # correlation 1: two of four entries
    assert second_view.vibcreg(y, y).item() == pytest.approx(100 * 2 * 2 / 4, rel=1e-5)
    assert second_view.vibcreg(7 * y, 7 * y).item() == pytest.approx(100, rel=1e-5)
    y = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]])  # no correlation, variance 4/3
    assert second_view.vibcreg(y, y + 0.5).item() == pytest.approx(25 * 0.25, rel=1e-5)


def test_iter_norm_whitens_each_group():
    mix = torch.randn(8, 8, generator=rng()) * 0.3 + torch.eye(8)
    y = torch.randn(4000, 8, generator=rng(1)).double() @ mix.double() + 5
    for steps, atol in ((5, 0.03), (10, 1e-4)):  # five are the code's
        out = second_view.iter_norm(y, steps=steps, group=4)
        for part in out.split(4, dim=1):
            torch.testing.assert_close(part.T @ part / 4000, torch.eye(4).double(), atol=atol, rtol=0)
    torch.testing.assert_close(out.mean(0), torch.zeros(8).double(), atol=1e-9, rtol=0)
    S = y.T.cov(correction=0)[:4, :4] + 1e-5 * torch.eye(4)
    value, vector = torch.linalg.eigh(S)
    want = (y - y.mean(0))[:, :4] @ (vector * value ** -0.5) @ vector.T
    torch.testing.assert_close(out[:, :4], want, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch, variance", [(32, 0.35), (128, 0.51)])
def test_iter_norm_of_64_features_is_not_white_after_five_steps(batch, variance):
    out = second_view.iter_norm(torch.randn(batch, 64, generator=rng()))
    assert out.var(0).mean().item() == pytest.approx(variance, abs=0.02)


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


@pytest.mark.parametrize("ssl", ["barlow", "vibcreg", "vicreg"])
@pytest.mark.parametrize("augment", ["slice", "warp", "gauss"])
def test_stage_one_loss_by_hand(ssl, augment):
    model = NCVQVAE(ssl=ssl, augment=augment, **SMALL)
    model.generator_ = rng(4)
    with nc_vqvae.seeded(0, "cpu"):
        net = model.build(20, 2).eval()
    x = torch.randn(80, 20, 2, generator=rng())
    views = {"slice": second_view.slice_shuffle, "warp": second_view.window_warp, "gauss": second_view.gauss}
    xa = views[augment](x, rng(4))

    def squares(z, x):
        xhat, uhat = net.decode(z, 20)
        return ((xhat - x) ** 2).mean() + ((uhat - nc_vqvae.stft(x)) ** 2).mean()

    with torch.no_grad():
        _, parts = model.loss(net, x)
        z, za = net.encoder(nc_vqvae.stft(x)), net.encoder(nc_vqvae.stft(xa))
        z_q = net.quantiser.look_up(net.quantiser.distances(z).argmin(-1), z.shape)
        y, ya = net.project(z_q), net.project(za)
        if ssl == "vibcreg":
            y, ya = second_view.iter_norm(y), second_view.iter_norm(ya)
        alike = {"barlow": second_view.barlow_twins, "vibcreg": second_view.vibcreg, "vicreg": second_view.vicreg}
        want = {"rec": squares(z_q, x), "vq": ((z - z_q) ** 2).mean(), "rec_aug": squares(za, xa),
                "ssl": alike[ssl](y, ya)}
    assert parts.keys() == want.keys()
    for name, value in want.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-4), name


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
    # The prior may tune its own copy of the codes; a series is written with those of stage 1.
    monkeypatch.setitem(model.prior_.embed._parameters, "weight", model.prior_.embed.weight + 9)
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
    (lambda m, X: NCVQVAE(projector_width=0), "projector_width 0: need a whole number of at least 1"),
    (lambda m, X: NCVQVAE(n_codes=0), "n_codes 0"),
    (lambda m, X: m.generate(0), "n 0"),
    (lambda m, X: m.generate(2, steps=0), "steps 0"),
    (lambda m, X: m.fit_prior(X, epochs=-1), "epochs -1"),
    (lambda m, X: m.fit_prior(X, dim=15), "dim 15: need an even number"),
    (lambda m, X: m.fit_prior(X, n_layers=0), "n_layers 0"),
    (lambda m, X: m.fit_prior(X, np.zeros((12, 1))), r"labels of shape \(12, 1\)"),
    (lambda m, X: m.fit_prior(X, [0, 1]), r"labels of shape \(2,\) for 12 series"),
])
def test_errors_are_one_clear_line(fitted, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(fitted[0], fitted[1])
    assert "\n" not in str(error.value)


def test_generate_before_fit_prior_says_so():
    with pytest.raises(RuntimeError, match="fit_prior"):
        NCVQVAE(epochs=0, **SMALL).fit(series()[0]).generate(2)


def test_a_new_fit_drops_the_prior_of_the_old_codes():
    X, _ = series()
    model = NCVQVAE(epochs=0, **SMALL).fit(X).fit_prior(X, epochs=0, dim=16, n_layers=1)
    assert model.generate(1).shape == (1, 20, 1)
    with pytest.raises(RuntimeError, match="fit_prior"):
        model.fit(X).generate(1)
