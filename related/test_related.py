"""The shared base, SimMTM and fine-tuning against oracles of their own: closed forms and loops."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from related import common, fine_tune, simmtm
from related.mug import MUG
from related.nc_vqvae import NCVQVAE
from related.simmtm import SimMTM

SMALL_VQ = dict(dim=8, n_codes=6, n_res=1, projector_width=12)
METHODS = {
    "simmtm": SimMTM,
    "transformer": lambda *a, **k: SimMTM(*a, **k, encoder="transformer"),
    "mug": MUG,
    "nc-vqvae": lambda *a, **k: NCVQVAE(*a, **k, **SMALL_VQ),
}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def waves(N, T, D, seed=0):
    """Sine waves of two frequencies in turn, with noise: (N, T, D) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(T)[None, :, None] / T
    f = np.where(np.arange(N) % 2, 2, 5)[:, None, None]
    x = np.sin(2 * np.pi * (f * t + rng.random((N, 1, D)))) + 0.1 * rng.standard_normal((N, T, D))
    return x.astype(np.float32)


def series(N=12, T=20, D=1, seed=0):
    """Waves around 50, (N, T, D) float32, and labels (N,)."""
    return 50 + 7 * waves(N, T, D, seed), np.arange(N) % 2


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the base -----------------------------------------------------------------------------------


def test_scale_by_hand_with_missing_and_constant_variates_and_back():
    X = np.array([[[1, 7, np.nan], [3, 7, np.nan]], [[5, 7, np.nan], [np.nan, 7, np.nan]]], "f4")
    scale, sd = common.Scale(X), math.sqrt(8 / 3)  # of 1, 3, 5
    want = np.zeros((2, 2, 3))
    want[..., 0] = [[-2 / sd, 0], [2 / sd, 0]]
    assert scale(X).dtype == np.float32
    np.testing.assert_allclose(scale(X), want, atol=1e-6)
    assert (scale(X + 1)[..., 1:] == 0).all()  # constant or unseen in training: 0 ever after
    assert scale(np.full((1, 1, 3), 9.0, "f4"))[0, 0, 0] == pytest.approx(6 / sd)
    back = scale.undo(scale(X))
    np.testing.assert_allclose(back[..., 0], [[1, 3], [5, 3]], atol=1e-5)
    assert (back[..., 1] == 7).all()


@pytest.mark.parametrize("n, size, want", [(2, 2, [2]), (5, 2, [2, 3]), (33, 32, [16, 17])])
def test_batches_cover_all_in_a_new_order_and_leave_no_lone_series(n, size, want):
    parts = common.batches(n, size, rng(1))
    assert sorted(map(len, parts)) == want and sorted(torch.cat(list(parts)).tolist()) == [
        *range(n)
    ]
    assert n == 2 or torch.cat(list(parts)).tolist() != [*range(n)]


def test_learning_rate_falls_to_zero_along_a_cosine():
    w, seen = torch.nn.Parameter(torch.zeros(1)), []

    def parts_of(index):
        seen.append(w.item())
        return {"loss": w.sum()}  # gradient 1: each step of SGD moves w by the learning rate

    common.train(torch.optim.SGD([w], lr=1.0), parts_of, 4, 2, 2, torch.Generator())
    moved = -np.diff([*seen, w.item()])
    want = [(1 + math.cos(math.pi * s / 4)) / 2 for s in range(4)]
    np.testing.assert_allclose(moved, want, atol=1e-6)


@every_method
def test_seed_repeats_bit_for_bit_and_leaves_all_global_state_alone(make):
    X = waves(8, 24, 2)
    X[0, 3] = np.nan
    kept = X.copy()
    torch.manual_seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one = make(2, epochs=2, seed=3).fit(X)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == random.getstate()
    torch.manual_seed(12)
    two, other = make(2, epochs=2, seed=3).fit(X), make(2, epochs=2, seed=4).fit(X)
    np.testing.assert_array_equal(one.embedding_, two.embedding_)
    np.testing.assert_array_equal(one.labels_, two.labels_)
    assert not np.array_equal(one.embedding_, other.embedding_)
    assert [m.generator_.initial_seed() for m in (one, other)] == [3, 4]  # masks and order too
    np.testing.assert_array_equal(X, kept)


@every_method
@pytest.mark.parametrize("T, D", [(5, 1), (40, 6), (150, 2)])
def test_shapes_of_the_estimator(make, T, D):
    X, records = waves(6, T, D), []
    model = make(2, epochs=1, on_epoch=records.append)
    labels = model.fit_predict(X, y=[0] * 6)
    assert labels.shape == (6,) and labels.dtype == np.int64 and set(labels) <= {0, 1}
    H = model.transform(X)
    assert H.shape == (6, 8 if make is METHODS["nc-vqvae"] else 64) and H.dtype == np.float32
    assert np.isfinite(H).all()
    np.testing.assert_array_equal(H, model.embedding_)
    np.testing.assert_array_equal(model.predict(X), labels)
    np.testing.assert_allclose(model.transform(X[2:3]), H[2:3], atol=1e-4)  # eval mode: row by row
    assert records == model.history_ and records[0]["epoch"] == 1


@every_method
def test_no_epochs_is_the_untrained_network_and_evaluate_repeats(make):
    X = waves(4, 20, 1)
    model = make(epochs=0, seed=5).fit(X)
    assert model.history_ == [] and not hasattr(model, "labels_")
    with common.seeded(5, "cpu"):
        net = model.build(20, 1)
    for a, b in zip(net.parameters(), model.net_.parameters()):
        assert torch.equal(a, b)
    assert model.evaluate(X) == model.evaluate(X)


def test_errors_are_one_clear_line():
    X = waves(4, 20, 1)
    fitted = SimMTM(epochs=0).fit(X)
    for make, text in [
        (lambda: SimMTM(M=0), "M 0: need a whole number of at least 1"),
        (lambda: SimMTM(ratio=1.0), "0 < ratio < 1"),
        (lambda: SimMTM(tau=math.nan), "tau nan: need a temperature above 0"),
        (lambda: SimMTM(encoder="rnn"), "encoder 'rnn' is unknown; use one of conv, transformer"),
        (lambda: SimMTM(epochs=2.0), "epochs 2.0: need a whole number"),
        (lambda: SimMTM(batch_size=1), "batch_size 1: need a whole number of at least 2"),
        (lambda: fitted.evaluate(X[:1]), "1 series has no others"),
        (lambda: SimMTM().fit(X[0]), r"\(N, T, D\)"),
        (lambda: SimMTM(9).fit(X), "n_clusters=9"),
        (lambda: SimMTM().fit(X * np.inf), "NaN for missing"),
        (lambda: SimMTM(device="tpux").fit(X), "auto, cpu or cuda"),
        (lambda: SimMTM().transform(X), "not fitted"),
        (lambda: SimMTM().fit_predict(X), "n_clusters is None"),
        (lambda: fitted.transform(X[:, :9]), "fit saw"),
        (lambda: fine_tune.classifier(fitted, X[:1], [0]), "series 1: need a whole number"),
        (lambda: MUG(reading="B"), "reading 'B' is unknown; use one of A, masked-query"),
        (lambda: MUG(granularity="fine", cross="concat"), "joins two granularities"),
        (lambda: MUG(granularity="coarse", fusion="max"), "lacks"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=text) as caught:
            make()
        assert "\n" not in str(caught.value)


# ---- SimMTM -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio, mean_run", [(0.5, 3), (0.15, 3), (0.3, 5)])
def test_mask_share_and_mean_run_are_the_chains(ratio, mean_run):
    keep = simmtm.geometric_mask(20, 4000, ratio, mean_run, rng(1))
    assert keep.dtype == torch.bool and keep.shape == (20, 4000)
    assert (~keep).float().mean().item() == pytest.approx(ratio, abs=0.015)
    runs = {True: [], False: []}
    for row in keep.tolist():
        for kept, run in itertools.groupby(row):
            runs[kept].append(len(list(run)))
    assert np.mean(runs[False]) == pytest.approx(mean_run, rel=0.05)
    assert np.mean(runs[True]) == pytest.approx(mean_run * (1 - ratio) / ratio, rel=0.05)
    assert np.var(runs[False]) == pytest.approx(mean_run**2 - mean_run, rel=0.12)  # geometric
    first = simmtm.geometric_mask(20000, 2, ratio, mean_run, rng())  # starts at its share
    np.testing.assert_allclose((~first).float().mean(0), [ratio] * 2, atol=0.012)


def test_masked_copies_hold_the_original_or_zero_under_masks_of_their_own():
    x = torch.rand(3, 50, 2) + 1  # no zero of its own
    kept = x.clone()
    rows = simmtm.masked_copies(x, 4, 0.5, 3, rng())
    keep = simmtm.geometric_mask(24, 50, 0.5, 3, rng()).reshape(12, 2, 50)  # runs over time
    assert torch.equal(rows[3:] != 0, keep.transpose(1, 2)) and rows.shape == (15, 50, 2)
    assert torch.equal(rows[:3], x) and torch.equal(x, kept)
    masks = set()
    for u in range(3, 15):
        masked = rows[u] == 0
        assert torch.equal(rows[u][~masked], x[u % 3][~masked])
        masks |= {tuple(masked[:, d].tolist()) for d in range(2)}
    assert len(masks) == 24  # one mask for each series, copy and variate


@pytest.mark.parametrize("M", [1, 3, 5])
def test_contrastive_loss_closed_forms(M):
    B = 4
    rows = B * (M + 1)
    relative = simmtm.relatives(rows, B)
    assert relative.sum().item() == rows * M
    ideal = torch.eye(B).repeat(M + 1, 1)  # relatives alike, all others at right angles
    log_w = simmtm.log_weights(simmtm.similarity(ideal), 0.02)
    loss = simmtm.contrastive_loss(log_w, relative).item()
    assert loss == pytest.approx(M * math.log(M), abs=1e-4)
    blind = simmtm.log_weights(simmtm.similarity(torch.ones(rows, 3)), 0.2)
    want = M * math.log(rows - 1)
    assert simmtm.contrastive_loss(blind, relative).item() == pytest.approx(want, rel=1e-5)


def test_learned_balance_by_hand():
    got = simmtm.balanced([torch.tensor(2.0), torch.tensor(0.5)], torch.tensor([2.0, 0.5]))
    assert got.item() == pytest.approx(2 / 8 + 0.5 / 0.5 + math.log(5) + math.log(1.25))


@pytest.mark.parametrize("encoder", ["conv", "transformer"])
def test_latent_step_decodes_its_own_stretch(encoder):
    net = simmtm.Network(50, 2, encoder).eval()
    z = torch.randn(1, 64, math.ceil(50 / net.stretch))
    assert net.encode(torch.zeros(1, 50, 2)).shape == z.shape
    moved = z.clone()
    moved[:, :, 3] += 1
    change = (net.decode(z) - net.decode(moved)).abs().sum((0, 2)) > 0
    assert net.decode(z).shape == (1, 50, 2)
    assert change.nonzero().ravel().tolist() == [*range(3 * net.stretch, 4 * net.stretch)]


def test_losses_as_a_loop_over_rows():
    model, B = SimMTM(M=2), 4
    with common.seeded(0, "cpu"):
        net, x = model.build(30, 2).eval(), torch.randn(B, 30, 2)
    with torch.no_grad():
        got = model.parts(net, x, rng(9))
        rows = simmtm.masked_copies(x, 2, 0.5, 3, rng(9))
        z = net.encode(rows)
        s = net.projector(z).numpy().astype(np.float64)
        s /= np.linalg.norm(s, axis=1, keepdims=True)
        want = {"rec": 0, "con": 0, "own": 0}
        for u in range(12):
            e = np.array([math.exp(s[u] @ s[v] / 0.2) * (u != v) for v in range(12)])
            w = e / e.sum()
            family = [v for v in range(12) if v != u and v % B == u % B]
            want["con"] -= sum(math.log(w[v]) for v in family) / 12
            want["own"] += sum(w[v] for v in family) / 12
            if u < B:
                mixed = sum(float(w[v]) * z[v : v + 1] for v in range(12))
                want["rec"] += ((net.decode(mixed) - x[u]) ** 2).mean().item() / B
    for name, value in want.items():
        assert got[name].item() == pytest.approx(value, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["conv", "transformer"])
def test_simmtm_learns_to_rebuild_unseen_series(encoder):
    X, new = waves(24, 32, 1), waves(24, 32, 1, seed=1)
    before = SimMTM(epochs=0, encoder=encoder).fit(X).evaluate(new)
    after = SimMTM(epochs=60, encoder=encoder).fit(X).evaluate(new)
    assert after["rec"] < before["rec"] / 2
    assert after["own"] > 2 * before["own"]


# ---- fine-tuning --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("encoder, unseen", [("conv", 0.9), ("transformer", 0.5)])
def test_classifier_learns_repeats_and_leaves_the_model(encoder, unseen):
    X, y = waves(32, 32, 1), np.array(["slow", "fast"])[np.arange(32) % 2]
    model = SimMTM(epochs=2, encoder=encoder).fit(X)
    before = {name: value.clone() for name, value in model.net_.state_dict().items()}
    label_of = fine_tune.classifier(model, X, y, epochs=40, lr=3e-3, seed=1)
    assert (label_of(X) == y).all()
    assert (label_of(waves(32, 32, 1, seed=1)) == y).mean() >= unseen
    again = fine_tune.classifier(model, X, y, epochs=40, lr=3e-3, seed=1)
    np.testing.assert_array_equal(again(X), label_of(X))
    assert all(torch.equal(v, before[k]) for k, v in model.net_.state_dict().items())


def test_forecaster_beats_the_last_value_and_starts_from_it():
    X = waves(32, 40, 1)
    X[::2] = X[1::2]  # slow waves only: half a turn ahead can be told from the rest
    model = SimMTM(epochs=5).fit(X[:, :-8])
    future_of = fine_tune.forecaster(model, X, 8, epochs=60, lr=3e-3)
    z, last = model.scale_(X)[:, -8:], model.scale_(X)[:, -9:-8]
    guess = future_of(X[:, :-8])
    assert guess.shape == (32, 8, 1)
    assert ((guess - z) ** 2).mean() < ((last - z) ** 2).mean() / 4
