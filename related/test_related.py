"""SimMTM, MUG and their shared base against oracles of their own: closed forms, loops, scipy."""
import importlib.util
import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from related import common, mug, simmtm
from related.mug import MUG
from related.simmtm import SimMTM

READINGS = [dict(reading=r, objective=o, granularity=g) for r, o, g in
            itertools.product(*MUG.OPTIONS.values())]


def waves(N, T, D, seed=0):
    """Sine waves of two frequencies in turn, with noise: (N, T, D) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(T)[None, :, None] / T
    f = np.where(np.arange(N) % 2, 2, 5)[:, None, None]
    x = np.sin(2 * np.pi * (f * t + rng.random((N, 1, D)))) + 0.1 * rng.standard_normal((N, T, D))
    return x.astype(np.float32)


# The shared base

def test_zscore_by_hand_with_missing_and_constant_variates():
    X = np.array([[[1, 7, np.nan], [3, 7, np.nan]], [[5, 7, np.nan], [np.nan, 7, np.nan]]])
    Z = common.ZScore(X.astype(np.float32))(X)
    sd = math.sqrt(8 / 3)  # of 1, 3, 5
    want = np.zeros((2, 2, 3))
    want[..., 0] = [[-2 / sd, 0], [2 / sd, 0]]
    assert Z.dtype == np.float32
    np.testing.assert_allclose(Z, want, atol=1e-6)
    assert (common.ZScore(X)(X + 1)[..., 1] == 0).all()  # constant in training: 0 ever after


def test_zscore_keeps_the_variance_of_data_far_from_zero():
    X = (1e6 + np.random.default_rng(0).standard_normal((500, 40, 1))).astype(np.float32)
    Z, wide = common.ZScore(X)(X), X.astype(np.float64)
    np.testing.assert_allclose(Z, (wide - wide.mean()) / wide.std(), atol=1e-5)


@pytest.mark.parametrize("n, size, want", [(2, 2, [2]), (3, 2, [3]), (5, 2, [2, 3]), (33, 32, [16, 17]), (64, 32, [32, 32])])
def test_batches_leave_no_lone_series(n, size, want):
    assert sorted(map(len, common.batches(n, size, torch.Generator().manual_seed(0)))) == want


def test_batches_cover_all_once_in_a_new_order():
    parts = common.batches(33, 32, torch.Generator().manual_seed(0))
    order = torch.cat(list(parts)).tolist()
    assert sorted(order) == list(range(33)) and order != list(range(33))


def test_learning_rate_falls_to_zero_along_a_cosine():
    w = torch.nn.Parameter(torch.zeros(1))
    seen = []

    def loss_fn(index):
        seen.append(w.item())
        return w.sum(), {}  # gradient 1: each step of SGD moves w by the learning rate

    common.train(torch.optim.SGD([w], lr=1.0), loss_fn, 4, 2, 2, torch.Generator())
    moved = -np.diff(seen + [w.item()])
    np.testing.assert_allclose(moved, [(1 + math.cos(math.pi * s / 4)) / 2 for s in range(4)],
                               atol=1e-6)


@pytest.mark.parametrize("make", [SimMTM, MUG])
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


@pytest.mark.parametrize("make", [SimMTM, MUG])
@pytest.mark.parametrize("T, D", [(25, 1), (40, 6), (300, 2), (5, 1)])
def test_estimator_shapes(make, T, D):
    X, records = waves(6, T, D), []
    model = make(2, epochs=1, on_epoch=records.append)
    labels = model.fit_predict(X)
    assert labels.shape == (6,) and labels.dtype == np.int64 and set(labels) <= {0, 1}
    H = model.transform(X)
    assert H.shape == (6, 64) and H.dtype == np.float32 and np.isfinite(H).all()
    np.testing.assert_array_equal(H, model.embedding_)
    np.testing.assert_array_equal(model.predict(X), labels)
    np.testing.assert_allclose(model.transform(X[2:3]), H[2:3], atol=1e-5)  # eval mode: row by row
    assert records == model.history_ and records[0]["epoch"] == 1


@pytest.mark.parametrize("make", [SimMTM, MUG])
def test_no_epochs_is_the_untrained_network(make):
    X = waves(4, 20, 1)
    model = make(epochs=0, seed=5).fit(X)
    assert model.history_ == [] and not hasattr(model, "labels_")
    with common.seeded(5, "cpu"):
        net = model.build(20, 1)
    for a, b in zip(net.parameters(), model.net_.parameters()):
        assert torch.equal(a, b)


def test_errors_are_one_clear_line():
    X = waves(4, 20, 1)
    for make, bad, text in [
            (lambda: SimMTM(M=0), ValueError, "M 0: need a whole number of at least 1"),
            (lambda: SimMTM(ratio=1.0), ValueError, "0 < ratio < 1"),
            (lambda: SimMTM(M=1.5), ValueError, "M 1.5"),
            (lambda: SimMTM(tau=0), ValueError, "tau 0: need a temperature above 0"),
            (lambda: SimMTM(tau=math.nan), ValueError, "tau nan"),
            (lambda: SimMTM(epochs=-1), ValueError, "epochs -1"),
            (lambda: SimMTM(epochs=2.0), ValueError, "epochs 2.0: need a whole number"),
            (lambda: SimMTM(batch_size=1), ValueError, "batch_size 1: need a whole number of at least 2"),
            (lambda: SimMTM(n_clusters=0), ValueError, "n_clusters 0"),
            (lambda: MUG(epochs=0).fit(X).evaluate(X[:1]), ValueError, "1 series has no others"),
            (lambda: MUG(reading="B"), ValueError, "masked-query"),
            (lambda: SimMTM().fit(X[0]), ValueError, r"\(N, T, D\)"),
            (lambda: SimMTM().fit(X[:1]), ValueError, "at least 2"),
            (lambda: SimMTM(9).fit(X), ValueError, "n_clusters=9"),
            (lambda: SimMTM().fit(X * np.inf), ValueError, "NaN for missing"),
            (lambda: SimMTM(device="tpux").fit(X), ValueError, "auto, cpu or cuda"),
            (lambda: SimMTM().transform(X), RuntimeError, "not fitted"),
            (lambda: SimMTM().fit_predict(X), ValueError, "n_clusters is None"),
            (lambda: SimMTM(epochs=0).fit(X).transform(X[:, :9]), ValueError, "fit saw")]:
        with pytest.raises(bad, match=text) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_script_runs_from_any_folder():
    done = subprocess.run([sys.executable, ROOT / "related" / "simmtm.py", "--epochs", "1"], cwd="/",
                          capture_output=True, text=True)
    assert done.returncode == 0 and "ACC" in done.stdout, done.stderr


@pytest.mark.parametrize("module", [simmtm, mug])
def test_main_scores_and_refuses_in_one_line(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--data", "BasicMotions", "--epochs", "0"])
    module.main()
    assert "ACC" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["x", "--data", "NoSuchSet"])
    with pytest.raises(SystemExit, match="error: .*NoSuchSet"):
        module.main()


# SimMTM

@pytest.mark.parametrize("ratio, mean_run", [(0.5, 3), (0.15, 3), (0.3, 5)])
def test_mask_share_and_mean_run_are_the_chains(ratio, mean_run):
    keep = simmtm.geometric_mask(20, 4000, ratio, mean_run, torch.Generator().manual_seed(1))
    assert keep.dtype == torch.bool and keep.shape == (20, 4000)
    assert (~keep).float().mean().item() == pytest.approx(ratio, abs=0.015)
    runs = {True: [], False: []}
    for row in keep.tolist():
        for kept, run in itertools.groupby(row):
            runs[kept].append(len(list(run)))
    assert np.mean(runs[False]) == pytest.approx(mean_run, rel=0.05)
    assert np.mean(runs[True]) == pytest.approx(mean_run * (1 - ratio) / ratio, rel=0.05)
    assert np.var(runs[False]) == pytest.approx(mean_run ** 2 - mean_run, rel=0.12)  # geometric


def test_mask_starts_at_its_stationary_share():
    keep = simmtm.geometric_mask(20000, 2, 0.2, 4, torch.Generator().manual_seed(0))
    np.testing.assert_allclose((~keep).float().mean(0), [0.2, 0.2], atol=0.012)


def test_masked_copies_hold_the_original_or_zero():
    x = torch.rand(3, 50, 2) + 1  # no zero of its own
    kept = x.clone()
    rows = simmtm.masked_copies(x, 4, 0.5, 3, torch.Generator().manual_seed(0))
    assert rows.shape == (15, 50, 2)
    assert torch.equal(rows[:3], x) and torch.equal(x, kept)
    masks = set()
    for u in range(3, 15):
        masked = rows[u] == 0
        assert torch.equal(rows[u][~masked], x[u % 3][~masked])
        masks |= {tuple(masked[:, d].tolist()) for d in range(2)}
    assert len(masks) == 24  # one mask for each series, copy and variate


def test_masked_copies_mask_the_right_share_in_runs_over_time():
    rows = simmtm.masked_copies(torch.ones(2, 3000, 5), 1, 0.2, 4, torch.Generator().manual_seed(0))
    masked = (rows[2:] == 0).transpose(1, 2).flatten(0, 1)  # (10, 3000)
    assert masked.float().mean().item() == pytest.approx(0.2, abs=0.03)
    runs = [len(list(run)) for row in masked.tolist() for hidden, run in itertools.groupby(row) if hidden]
    assert np.mean(runs) == pytest.approx(4, rel=0.1)


def test_weights_sum_to_one_exclude_self_and_aggregate_as_a_loop():
    g = torch.Generator().manual_seed(0)
    s, z = torch.randn(6, 5, generator=g), torch.randn(6, 4, 3, generator=g)
    log_w = simmtm.log_weights(simmtm.similarity(s), 0.2)
    w = log_w.exp()
    torch.testing.assert_close(w.sum(1), torch.ones(6))
    assert (w.diagonal() == 0).all()
    got, a = simmtm.aggregate(log_w, z), s.numpy()
    for u in range(6):
        e = np.array([math.exp(a[u] @ a[v] / np.linalg.norm(a[u]) / np.linalg.norm(a[v]) / 0.2)
                      if v != u else 0 for v in range(6)])
        want = sum(e[v] / e.sum() * z[v].numpy() for v in range(6))
        np.testing.assert_allclose(got[u], want, atol=1e-5)


@pytest.mark.parametrize("M", [1, 2, 3, 5])
def test_contrastive_loss_closed_forms(M):
    B = 4
    rows = B * (M + 1)
    relative = simmtm.relatives(rows, B)
    assert relative.sum().item() == rows * M
    ideal = torch.eye(B).repeat(M + 1, 1)  # relatives alike, all others at right angles
    log_w = simmtm.log_weights(simmtm.similarity(ideal), 0.02)
    assert simmtm.contrastive_loss(log_w, relative).item() == pytest.approx(M * math.log(M), abs=1e-4)
    blind = simmtm.log_weights(simmtm.similarity(torch.ones(rows, 3)), 0.2)
    want = M * math.log(rows - 1)
    assert simmtm.contrastive_loss(blind, relative).item() == pytest.approx(want, rel=1e-5)


def test_learned_balance_by_hand():
    got = simmtm.balanced([torch.tensor(2.0), torch.tensor(0.5)], torch.tensor([2.0, 0.5]))
    assert got.item() == pytest.approx(2 / 8 + 0.5 / 0.5 + math.log(5) + math.log(1.25))


def test_latent_step_decodes_its_own_stretch():
    net = simmtm.Network(50, 2).eval()
    z = torch.randn(1, 64, math.ceil(50 / net.stretch))
    moved = z.clone()
    moved[:, :, 3] += 1
    change = (net.decode(z) - net.decode(moved)).abs().sum((0, 2)) > 0
    assert net.decode(z).shape == (1, 50, 2)
    assert change.nonzero().ravel().tolist() == list(range(3 * net.stretch, 4 * net.stretch))


def test_losses_as_a_loop_over_rows():
    model, B = SimMTM(M=2), 4
    with common.seeded(0, "cpu"):
        net, x = model.build(30, 2).eval(), torch.randn(B, 30, 2)
    with torch.no_grad():
        got = model._losses(net, x, torch.Generator().manual_seed(9))
        rows = simmtm.masked_copies(x, 2, 0.5, 3, torch.Generator().manual_seed(9))
        z = net.encode(rows)
        s = net.projector(z).numpy().astype(np.float64)
        s /= np.linalg.norm(s, axis=1, keepdims=True)
        rec = con = own = 0
        for u in range(12):
            e = np.array([math.exp(s[u] @ s[v] / 0.2) * (u != v) for v in range(12)])
            w = e / e.sum()
            family = [v for v in range(12) if v != u and v % B == u % B]
            con -= sum(math.log(w[v]) for v in family) / 12
            own += sum(w[v] for v in family) / 12
            if u < B:
                mixed = sum(float(w[v]) * z[v:v + 1] for v in range(12))
                rec += ((net.decode(mixed) - x[u]) ** 2).mean().item() / B
    assert got["rec"].item() == pytest.approx(rec, rel=1e-4)
    assert got["con"].item() == pytest.approx(con, rel=1e-4)
    assert got["own"].item() == pytest.approx(own, rel=1e-4)


def test_rebuilding_trains_through_the_weights_and_through_z():
    with common.seeded(0, "cpu"):
        net, x = SimMTM().build(30, 2), torch.randn(8, 30, 2)
    net(x, 0.2)[0].square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in net.projector.parameters() if p.ndim > 1)
    net.zero_grad()
    net.projector.forward = lambda z: torch.ones(len(z), 3)  # weights that do not depend on z
    net(x, 0.2)[0].square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in net.encoder.parameters() if p.ndim > 1)


def test_simmtm_representation_is_the_mean_over_time():
    model = SimMTM(epochs=1).fit(waves(6, 40, 2))
    x = torch.from_numpy(model.scale_(waves(6, 40, 2)))
    z = model.net_.eval().encode(x).detach().numpy()
    np.testing.assert_allclose(model.embedding_, sum(z[:, :, t] for t in range(10)) / 10, atol=1e-5)


def test_simmtm_learns_to_rebuild_unseen_series():
    X, new = waves(24, 32, 1), waves(24, 32, 1, seed=1)
    before = SimMTM(epochs=0).fit(X).evaluate(new)
    after = SimMTM(epochs=60).fit(X).evaluate(new)
    assert after["rec"] < before["rec"] / 2
    assert after["own"] > 2 * before["own"]


# SimMTM and MUG

@pytest.mark.parametrize("model", [SimMTM(), SimMTM(M=1)] + [MUG(**r) for r in READINGS], ids=lambda m: (
    f"{type(m).__name__}-" + "-".join(str(v) for k, v in vars(m).items() if k in ("M", *MUG.OPTIONS))))
def test_every_parameter_gets_a_gradient(model):
    model.generator_ = torch.Generator().manual_seed(0)
    with common.seeded(0, "cpu"):
        net = model.build(30, 2).train()
        loss, parts = model.loss(net, torch.randn(6, 30, 2))
        loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


# experiments/related.py

@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("experiment", ROOT / "experiments" / "related.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nearest_neighbours_as_a_loop(experiment):
    rng = np.random.default_rng(0)
    train, test, y = rng.random((30, 3)), rng.random((9, 3)), rng.integers(0, 3, 30)
    for row, got in zip(test, experiment.nearest(train, y, test)):
        near = [c for _, c in sorted((((row - t) ** 2).sum(), c) for t, c in zip(train, y))[:5]]
        assert got == min(set(near), key=lambda c: (-near.count(c), c))


def test_wins_by_hand(experiment):
    records = [{"runs": {"a": {"rec": a}, "b": {"rec": b}}} for a, b in [(1, 2), (3, 3), (5, 4), (0, 3)]]
    line = experiment.wins(records, "rec", "a", "b", sign=-1)
    assert "better in 2, equal in 1, worse in 1 of 4" in line and line.endswith("-0.750")


def test_experiment_scores_every_run_of_a_job(experiment, monkeypatch):
    X, y = waves(12, 20, 2), np.arange(12) % 2
    monkeypatch.setattr(experiment, "load_pair", lambda *given: (X, y, X[:8], y[:8], 2))
    for method in experiment.STEPS:
        record = experiment.run_one(method, "toy", 0, 2, ())
        assert record["epochs"] == 2 and (record["train"], record["test"]) == (12, 8)
        for run in record["runs"].values():
            assert all(0 <= run[k] <= 1 for k in ("ACC", "NMI", "5NN"))
    assert len(record["runs"]) == 12  # raw, three untrained, eight readings of MUG


@pytest.mark.parametrize("options", [["--readme"], ["--table"], ["--quick", "--readme"]])
def test_no_runs_make_no_tables_and_leave_the_readme(experiment, monkeypatch, tmp_path, options):
    monkeypatch.setattr(experiment, "into_readme", lambda *_: pytest.fail("the README's tables would be lost"))
    monkeypatch.setattr(sys, "argv", ["related.py", "--out", str(tmp_path / "none.json"), *options])
    with pytest.raises(SystemExit, match="^error: .*to make tables of"):
        experiment.main()


def test_readme_holds_the_tables_of_the_results_file(experiment):
    text = experiment.tables(json.loads((ROOT / "results" / "related.json").read_text()))
    assert text and text in (ROOT / "related" / "README.md").read_text()
