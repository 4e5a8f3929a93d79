"""NC-VQVAE's second stage: MaskGIT prior, scores of generated series, the commands that use them."""
import importlib.util
import json
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
from related import common, maskgit, nc_vqvae
from related import generation_scores as gs
from related.nc_vqvae import NCVQVAE
from related.test_nc_vqvae import SMALL, rng, series


# ---- prior --------------------------------------------------------------------------------------

def small_prior(n=9, n_classes=2, K=5, dim=8):
    with common.seeded(0, "cpu"):
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


def test_decoding_keeps_the_surest_and_its_noise_falls(monkeypatch):
    """Position i is uniform over 2^i codes, so that any draw has log p = -i ln 2; the noise speaks against it."""
    allowed = torch.arange(128) < 2 ** torch.arange(8)[:, None]  # (n, K)
    logits = torch.zeros(8, 128).masked_fill(~allowed, -math.inf)

    class Stub(SimpleNamespace):
        def __call__(self, tokens, known, labels):
            return logits[None]

    noise = math.log(2) * torch.arange(8.)
    monkeypatch.setattr(maskgit, "gumbel", lambda shape, _: torch.zeros(shape) if len(shape) == 3 else noise[None])
    trace = []
    maskgit.decode(Stub(n_tokens=8, n_classes=0), torch.tensor([0]), rng(), steps=4, temperature=1.6, trace=trace)
    kept = [known[0].nonzero().flatten().tolist() for known in trace]
    # 8 cos(pi / 8) = 7.4, then 5.7, 3.1, 0 are asked again; the noise weighs 1.2, .8, .4, 0
    assert kept == [[7], [0, 1, 7], [0, 1, 2, 3, 7], list(range(8))]


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
    assert hidden.min() >= 1 and hidden.max() in (19, 20)
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


def test_judge_and_reference():
    X, y = series()
    model = NCVQVAE(epochs=2, **SMALL).fit(X).fit_prior(X, y, epochs=2, dim=16, n_layers=1)
    data = SimpleNamespace(X=X, y=y)
    fcn = gs.fit_fcn(gs.ZScore(X)(X), y, epochs=5, device="cpu")
    out, real = gs.judge(model, data, data, fcn, n=10), gs.reference(data, data, fcn)
    assert set(out) == {"fid", "is", "tstr"} and out["fid"] > 0 and 1 <= out["is"] <= 2
    assert real["fid"] == pytest.approx(0, abs=1e-6)
    asked = []
    parrot = SimpleNamespace(generate=lambda n, y=None: asked.append(n) or X)  # returns the data
    out = gs.judge(parrot, data, data, fcn, n=20)
    gs.judge(parrot, data, data, fcn, n=10)
    assert asked == [20, 12, 12, 12]  # n, but at least the test series; then one for each training series
    assert out == {k: pytest.approx(real[k], abs=1e-6) for k in ("fid", "is", "tstr")}


# ---- command ------------------------------------------------------------------------------------

def command(*args):
    return subprocess.run([sys.executable, str(ROOT / "related" / "nc_vqvae.py"), *args], capture_output=True,
                          text=True, cwd=ROOT, timeout=120)


def test_command_says_in_one_line_how_to_get_the_data(tmp_path):
    out = command("--data", "GunPoint", "--data-dir", str(tmp_path))
    assert out.returncode == 1 and "Traceback" not in out.stderr
    assert "pip install --no-deps aeon" in out.stderr and len(out.stderr.strip().splitlines()) == 1


@pytest.fixture
def toy_splits(monkeypatch):
    """A data set "toy" in place of what load_splits would read; the function that does so for a module."""
    X, y = series(N=20)
    halves = [SimpleNamespace(X=X[part], y=y[part], classes=["a", "b"]) for part in (slice(10), slice(10, 20))]
    return lambda module: monkeypatch.setattr(module, "load_splits", lambda name, folders=None: halves)


def test_command_trains_scores_and_draws(tmp_path, monkeypatch, capsys, toy_splits):
    pytest.importorskip("matplotlib")
    toy_splits(nc_vqvae)
    monkeypatch.setattr(nc_vqvae, "__file__", str(tmp_path / "related" / "nc_vqvae.py"))
    monkeypatch.setattr(sys, "argv", ["nc_vqvae.py", "--data", "toy", "--epochs", "1", "--prior-epochs", "1"])
    nc_vqvae.main()
    out = capsys.readouterr().out
    for word in ("knn_codes", "linear_codes", "generated  fid", "real train fid", "a scale of its own"):
        assert word in out
    assert (tmp_path / "figures" / "nc_vqvae_sample_toy.png").stat().st_size > 1000
    monkeypatch.setattr(sys, "argv", ["nc_vqvae.py", "--prior-epochs", "-1"])
    with pytest.raises(SystemExit, match="error: prior-epochs -1"):
        nc_vqvae.main()


@pytest.fixture
def experiment():
    spec = importlib.util.spec_from_file_location("experiment_nc_vqvae", ROOT / "experiments" / "nc_vqvae.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_experiment_fills_once_and_makes_the_table(tmp_path, monkeypatch, capsys, toy_splits, experiment):
    toy_splits(experiment)
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    monkeypatch.setattr(experiment, "SAMPLES", 12)
    with pytest.raises(SystemExit, match="error: .*does not exist"):
        experiment.table(2)
    experiment.fill(["toy"], [0], None, 2)
    file = tmp_path / "results" / "nc_vqvae_2.json"
    content, first = json.loads(file.read_text()), file.read_bytes()
    assert list(content["runs"]) == [f"toy/{v}/0" for v in (*experiment.VARIANTS, "real")]
    assert content["settings"] == {"steps": 2, "prior_steps": 2, "batch_size": 32, "samples": "max(12, test series)"}
    experiment.fill(["toy"], [0], None, 2)
    assert file.read_bytes() == first and not (tmp_path / "results" / "nc_vqvae.json").exists()
    table = experiment.table(2)
    fid = content["runs"]["toy/plain VQVAE/0"]["fid"]
    assert f"| {fid:.3f} ± 0.000 |" in table and "| toy | real | 1 | - |" in table


@pytest.mark.parametrize("ours, sets, runs", [([1, 2], 1, 2), ([1, 4], 0, 1), ([3, 3], 0, 0)])
def test_wins_over_plain_count_lower_fids_and_higher_scores(experiment, monkeypatch, ours, sets, runs):
    rows = {f"toy/{variant}/{seed}": {"fid": value, "is": -value}
            for variant, values in (("Barlow, slice", ours), ("plain VQVAE", [2, 3])) for seed, value in enumerate(values)}
    settings = {"steps": 1, "prior_steps": 1, "batch_size": 32, "samples": 9}
    monkeypatch.setattr(experiment, "read", lambda path: {"settings": settings, "runs": rows})
    last = [line for line in experiment.table(1).splitlines() if line.startswith("| Barlow, slice |")][-1]
    cells = dict(zip(experiment.COLUMNS, last.split("|")[2:]))
    assert cells["fid"] == cells["is"] == f" {sets} of 1 sets, {runs} of 2 runs "


def test_readme_holds_the_tables_of_the_results_files(experiment):
    readme = (ROOT / "related" / "README.md").read_text()
    longer = [int(file.stem.split("_")[2]) for file in (ROOT / "results").glob("nc_vqvae_[0-9]*[0-9].json")]
    for steps in (experiment.STEPS, *longer):
        assert experiment.table(steps) in readme


def test_an_installed_aeon_is_found_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "aeon").mkdir()
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert common.data_dirs()[-1] == tmp_path / "aeon" / "datasets" / "data"
