"""Scores of generation and the studies of the related methods: closed forms, toys, every row."""

import math
from types import SimpleNamespace

import generation as gs
import nc_vqvae
import numpy as np
import pytest
import store
import torch

from related.common import Scale
from related.test_related import series


def toy(N=24, T=20, D=2):
    """Halves of two classes in turn."""
    X, y = series(N, T, D)
    n = N // 2
    return gs.Halves("toy", X, y, ["a", "b"], (X[:n], y[:n]), (X[n:], y[n:]))


@pytest.fixture
def related(monkeypatch):
    """experiments/related.py, whose name is that of a package."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("rows", store.ROOT / "experiments" / "related.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fid_against_the_closed_form_and_scipy():
    r = np.random.default_rng(0)
    A = r.normal(size=(500, 3)) @ r.normal(size=(3, 3)) + 2
    B = r.normal(size=(400, 3)) * [1, 2, 3]
    assert gs.fid(A, A) == pytest.approx(0, abs=1e-8)
    assert gs.fid(A, A + [3, 4, 0]) == pytest.approx(25)
    linalg = pytest.importorskip("scipy.linalg")
    S, R = np.cov(A.T), np.cov(B.T)
    want = ((A.mean(0) - B.mean(0)) ** 2).sum() + np.trace(S + R - 2 * linalg.sqrtm(S @ R).real)
    assert gs.fid(A, B) == pytest.approx(want, rel=1e-6)


def test_inception_score_runs_from_one_to_the_number_of_classes():
    assert gs.inception_score(np.full((6, 3), 1 / 3)) == pytest.approx(1)
    assert gs.inception_score(np.eye(3)) == pytest.approx(3)
    P = np.array([[0.9, 0.1], [0.1, 0.9]])
    want = math.exp(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert gs.inception_score(P) == pytest.approx(want)


def test_nearest_neighbours_against_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    r = np.random.default_rng(0)
    y, y_test = r.integers(0, 3, 60), r.integers(0, 3, 80)
    H, H_test = (r.normal(size=(len(v), 5)) + v[:, None] * [1, 0.5, 0, 0, 0] for v in (y, y_test))
    low, span = H.min(0), np.ptp(H, 0)
    peer = neighbors.KNeighborsClassifier(5).fit((H - low) / span, y)
    want = peer.score((H_test - low) / span, y_test)
    assert gs.knn_accuracy(H, y, H_test, y_test) == pytest.approx(want)


@pytest.mark.slow
def test_classifier_learns_repeats_and_leaves_the_rng():
    halves, state = toy(), torch.get_rng_state()
    X = Scale(halves.X)(halves.X)
    nets = [gs.fit_fcn(X, halves.y, epochs=15) for _ in range(2)]
    H, P = gs.fcn_outputs(nets[0], X)
    assert H.shape == (24, 32) and P.shape == (24, 2) and (P.argmax(1) == halves.y).mean() > 0.9
    np.testing.assert_array_equal(H, gs.fcn_outputs(nets[1], X)[0])
    np.testing.assert_allclose(H[:1], gs.fcn_outputs(nets[0], X[:1])[0], atol=1e-5)  # eval mode
    assert torch.equal(torch.get_rng_state(), state)


def test_a_parrot_is_as_good_as_the_data():
    halves = toy()
    halves = halves._replace(test=halves.train)
    out = gs.compare(halves.train[0], halves.train[0], halves)
    assert out["FID"] == pytest.approx(0, abs=1e-6) and out["diversity"] == pytest.approx(1)
    same = gs.compare(halves.train[0][:1].repeat(12, 0), halves.train[0], halves)
    assert same["IS"] == pytest.approx(1) and same["diversity"] == pytest.approx(0, abs=1e-6)
    assert same["TSTR"] == out["TSTR"] and same["FID"] > 0


@pytest.mark.slow
def test_every_variant_of_every_study_gives_the_metrics_of_its_table(related, monkeypatch):
    monkeypatch.setattr(gs, "load", lambda *_: toy())
    monkeypatch.setattr(nc_vqvae, "SAMPLES", 12)
    args = SimpleNamespace(epochs=1)
    for script in (related, nc_vqvae):
        for study, (variants, metrics) in script.STUDIES.items():
            seen = set()
            for options in variants.values():
                record = script.run(args, toy(), study, options, 1)
                seen |= record.keys()
                assert all(math.isfinite(v) for v in record.values() if v is not None)
            assert set(metrics) <= seen, study


def test_spoiled_data_miss_their_share_or_carry_their_noise(related):
    halves = toy(200, 50)
    missing = related.spoiled(halves, "missing", 0.5, 0)
    gone = np.isnan(missing.X)
    assert gone.mean() == pytest.approx(0.5, abs=0.03)
    assert (missing.X[~gone] == halves.X[~gone]).all() and np.isnan(missing.test[0]).any()
    noise = related.spoiled(halves, "noise", 1, 0).X - halves.X
    np.testing.assert_allclose(noise.std((0, 1)), halves.train[0].std((0, 1)), rtol=0.05)


def test_series_of_another_set_get_the_shape_of_this_one(related):
    ramp = np.arange(10, dtype="f4")[None, :, None] * np.ones((3, 1, 2), "f4")
    out = related.like(ramp, 19, 5)
    np.testing.assert_allclose(
        out, np.arange(19)[None, :, None] / 2 * np.ones((3, 1, 5)), atol=1e-5
    )


def test_a_study_is_stored_once_and_makes_its_table(related, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gs, "load", lambda name, args: toy())
    command = ["--study", "forecast", "--epochs", "1", "--seeds", "0", "--data", "toy"]
    command += ["--out", str(tmp_path)]
    related.main(command)
    first = (tmp_path / "related.json").read_bytes()
    assert "| last value " in capsys.readouterr().out and b"| conv, here" in first
    related.main(command)
    assert "5 of 5 runs stored" in capsys.readouterr().out
    assert (tmp_path / "related.json").read_bytes() == first
