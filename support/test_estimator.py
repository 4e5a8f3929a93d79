"""EMTC as an estimator: what it takes, what it refuses, what it leaves alone."""

import functools
import re
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import emtc
from emtc import EMTC

SMALL = {"epochs": 1, "width": 8, "n_starts": 1, "n_init": 3, "epsilon": 0.45}
QUICK = {**SMALL, "epochs": 0}  # for the checks of scikit-learn, which fit hundreds of times


def made(N=10, T=12, D=2, seed=0):
    """X (N, T, D) float64 without clusters."""
    return np.random.default_rng(seed).normal(size=(N, T, D))


def test_a_short_series_alone_is_embedded_as_among_longer_ones():
    """Beyond max_keys the step between the keys is that of the fit, not of the series at hand."""
    X = made(N=8, T=24)
    X[::2, 13:] = np.nan
    model = EMTC(2, **{**SMALL, "max_keys": 6}).fit(X)
    alone = np.concatenate([model.transform(X[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(alone, model.transform(X), atol=1e-5)


def weights(model):
    return torch.cat([w.detach().flatten() for w in model.net_.parameters()])


def same(X, model):
    other = EMTC(2, **SMALL).fit(X)
    return torch.equal(weights(model), weights(other)) and (model.labels_ == other.labels_).all()


class Frame:
    """What pandas and polars have."""

    def __init__(self, X):
        self.X = X

    def to_numpy(self):
        return self.X


def test_anything_that_numpy_reads_gives_the_same():
    X, plain = made(), EMTC(2, **SMALL).fit(made())
    reversed_twice = np.ascontiguousarray(X[::-1])[::-1]
    gap = np.ma.masked_array(X, mask=np.zeros(X.shape, bool))
    gap[3, 5, 1] = np.ma.masked
    nan = X.copy()
    nan[3, 5, 1] = np.nan
    for other in (X.astype(">f8"), reversed_twice, torch.tensor(X, requires_grad=True), list(X),
                  Frame(X), np.asfortranarray(X), X.tolist()):  # fmt: skip
        assert same(other, plain), type(other)
    assert same(gap, EMTC(2, **SMALL).fit(nan)) and not same(nan, plain)
    found = emtc.as_tensor([X[0, 8::-1], *X[1:]]).numpy()  # one is shorter, and read backwards
    assert np.array_equal(found[0, :9], X[0, 8::-1]) and np.isnan(found[0, 9:]).all()
    assert np.array_equal(found[1:], X[1:])
    before = X.copy()
    assert np.array_equal(X, before)
    with torch.no_grad():
        assert same(X, plain)
    assert EMTC(2, **SMALL).fit(made().astype(int)).labels_.shape == (10,)


@pytest.mark.parametrize("X, word", [
    (made()[0], "N, T, D"), (made() + 1j, "real"), (made().astype(object), "real"),
    (made()[:, :0], "N, T, D"), (np.full((4, 3, 2), np.nan), "NaN"), ("text", "N, T, D"),
    (made() * np.inf, "infinite"), ([made()[0], made(D=3, T=9)[0]], "same D")])  # fmt: skip
def test_what_is_no_x_is_refused_in_one_line(X, word):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=word) as told:
        warnings.simplefilter("ignore")
        EMTC(2, **SMALL).fit(X)
    assert "\n" not in str(told.value)


def test_what_is_constant_and_what_looks_transposed_is_told():
    X = made()
    X[:, :, 1] = 1e6 + 0.1  # its mean is rounded, so that its standard deviation is not quite 0
    with pytest.warns(UserWarning, match=r"constant variates.*\[1\]"):
        assert np.isfinite(EMTC(2, **SMALL).fit(X).embedding_).all()
    with pytest.warns(UserWarning, match="transpose it"):
        EMTC(2, **SMALL).fit(made(N=4, T=3, D=5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EMTC(2, **SMALL).fit(made(N=20, T=3, D=5))


@pytest.mark.parametrize("options, word", [
    ({"n_clusters": True}, "n_clusters"), ({"n_clusters": 2.5}, "n_clusters"), ({"tau": 0}, "tau"),
    ({"n_clusters": 11}, "more than the 10 samples"),
    ({"drop": ("mev", "intra", "contra")}, "loss"), ({"epsilon": -5}, "epsilon"), ({"epsilon": 1.1}, "epsilon"),
    ({"mask": "mine"}, "evolving"), ({"drop": "IVM"}, "ivm"), ({"device": "tpu"}, "device"),
    ({"drop": ("intra", "inter", "contra")}, "loss"), ({"lr": float("nan")}, "lr"),
    ({"mask": made() > 5}, "mask"), ({"mask": made() > 5}, "shape"), ({"encoder": "x"}, "encoder"),
    ({"keep": "half"}, "keep"), ({"mask": made(3) > 0}, "mask")])  # fmt: skip
def test_a_bad_option_is_one_line_at_fit(options, word):
    if word in ("mask", "shape") and options["mask"].shape == made().shape:
        options = {"mask": made()}  # right shape, but not bool
    model = EMTC(**{"n_clusters": 2, **SMALL, **options})  # the constructor only stores
    with pytest.raises(ValueError, match=word) as told:
        model.fit(made())
    assert "\n" not in str(told.value)


def test_the_defaults_and_what_some_options_choose():
    assert emtc.OPTIONS == {  # the one setting for all data, which results/ was made with
        "n_clusters": 8, "n_views": 2, "epsilon": 0.15, "tau": 0.1, "alpha": 0.1, "beta": 0.1,
        "lr": 1e-3, "epochs": 40, "batch_size": 64, "width": 64, "mask": "evolving", "keep": 0.8,
        "hide": 0.5, "drop": (), "n_starts": 4, "trial": 15, "n_init": 50, "patience": 10,
        "max_keys": 256, "mask_lr": 30.0, "encoder": "bank", "pooling": "shares",
        "fusion": "learned", "as_printed": False, "seed": 0, "device": "auto"}  # fmt: skip
    assert EMTC(2, **SMALL, drop=("intra", "contra")).fit(made()).history_[0]["inter"] > 0
    assert type(EMTC(2, **QUICK).fit(made()).net_.encoders[1]) is emtc.Encoder
    assert type(EMTC(2, **QUICK, encoder="stack").fit(made()).net_.encoders[1]) is emtc.Stack


def test_scikit_learns_words():
    model = EMTC(3, tau=0.2)
    assert model.get_params()["tau"] == 0.2 and repr(model) == "EMTC(n_clusters=3, tau=0.2)"
    assert set(model.get_params()) == set(emtc.OPTIONS)
    assert model.set_params(mask="none", **SMALL) is model
    with pytest.raises(ValueError, match="no option bogus"):
        model.set_params(bogus=1)
    assert model.fit(made(), np.arange(10)).mask_.all()  # y is ignored, the mask read at fit
    assert np.array_equal(model.fit_predict(made(), None), model.labels_)
    with pytest.raises(TypeError):
        model.fit(made(), None, print)  # on_epoch and resume go by name
    for name in ("labels_", "mask_", "embedding_", "importance_", "cluster_centers_"):
        with pytest.raises(AttributeError, match="fit"):
            getattr(EMTC(2), name)
    for call in ("transform", "predict"):
        with pytest.raises(ValueError, match="fit"):
            getattr(EMTC(2), call)(made())
    with pytest.raises(ValueError, match="fit"):
        EMTC(2).save("nowhere.pt")
    with pytest.raises(ValueError, match="3 variates"):
        model.predict(made(D=3))


def test_numpys_numbers_are_options():
    one = EMTC(np.int64(2), **{**SMALL, "seed": np.int32(3), "tau": np.float32(0.5)}).fit(made())
    assert np.array_equal(
        one.labels_, EMTC(2, **{**SMALL, "seed": 3, "tau": 0.5}).fit(made()).labels_
    )


def test_results_are_copies():
    model = EMTC(2, **SMALL).fit(made())
    for name in ("labels_", "mask_", "embedding_", "importance_", "cluster_centers_"):
        first = getattr(model, name).copy()
        getattr(model, name)[:] = 7
        assert np.array_equal(getattr(model, name), first)
    X, seen = made(), []
    X[3, 5:9, 1] = np.nan

    def spoil(model, record):
        seen.append(model.importance_[3, 5:9, 1].tolist())
        model.labels_[:] = model.mask_[:] = 0

    plain, spoilt = (EMTC(2, **{**SMALL, "epochs": 3}).fit(X, on_epoch=f) for f in (None, spoil))
    assert torch.equal(weights(plain), weights(spoilt)) and seen == [[0] * 4] * 3


def test_two_fits_at_once_do_not_meet():
    alone = [weights(EMTC(2, **{**SMALL, "seed": s}).fit(made())) for s in range(4)]
    found = {}
    fit = lambda s: found.update({s: weights(EMTC(2, **{**SMALL, "seed": s}).fit(made()))})
    state = torch.get_rng_state()
    threads = [threading.Thread(target=fit, args=(s,)) for s in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(torch.equal(found[s], alone[s]) for s in range(4))
    assert torch.equal(state, torch.get_rng_state())


def test_float64_as_default_and_variates_far_from_zero():
    X = made()
    torch.set_default_dtype(torch.float64)
    try:
        assert EMTC(2, **SMALL).fit(X).embedding_.dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)
    for far in (60 * X + 1.7e9, 1e-3 * X + 1e5):
        np.testing.assert_allclose(emtc.z_scored(far)[0], emtc.z_scored(X)[0], atol=1e-4)
    X[:, :, 1] = 4e8
    with pytest.warns(UserWarning, match=r"\[1\]"):
        assert EMTC(2, **SMALL).fit(X).labels_.shape == (10,)
    with pytest.warns(UserWarning, match="transpose"):
        EMTC(2, **SMALL).fit(made(3, 4, 9))


def test_a_file_with_the_wrong_content_is_one_line(tmp_path):
    model, path = EMTC(2, **SMALL).fit(made()), tmp_path / "m.pt"
    model.save(path)
    with pytest.raises(ValueError, match="device tpu is not to be had"):
        EMTC.load(path, device="tpu")
    whole = torch.load(path, weights_only=True)
    for damage in ("centers", "net", "M", "options"):
        file = torch.load(path, weights_only=True)
        if damage == "options":
            del file["options"]
        elif damage == "centers":
            file["state"]["centers"] = file["state"]["centers"] * np.nan
        else:
            del file["state"][damage]
        torch.save(file, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match="bad.pt is not a model"):
            EMTC.load(tmp_path / "bad.pt")
    whole["state"]["centers"] = torch.zeros(2, 3)
    torch.save(whole, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="bad.pt is not a model"):
        EMTC.load(tmp_path / "bad.pt")


def test_a_mask_of_ones_own():
    mask = made(seed=1) > 0
    model = EMTC(2, **{**SMALL, "epochs": 2}, mask=mask).fit(made())
    assert np.array_equal(model.mask_, mask)
    assert model.transform(made()).shape == (10, 16)  # new series: nothing is hidden


def test_a_blown_up_loss_is_named():
    with pytest.raises(FloatingPointError, match="smaller lr"):
        EMTC(2, **{**SMALL, "epochs": 5, "lr": 1e9}).fit(made())


def test_scikit_learn_takes_it():
    base = pytest.importorskip("sklearn.base")
    model = base.clone(EMTC(2, drop=("mev",), **SMALL))
    assert model.get_params()["drop"] == ("mev",)
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(model)
    assert pipeline.fit_predict(made()).shape == (10,)


def test_scikit_learns_grid_search_takes_it():
    GridSearchCV = pytest.importorskip("sklearn.model_selection").GridSearchCV
    model = EMTC(2, **{**SMALL, "epochs": 0})
    score = lambda fitted, X, y=None: -len(np.unique(fitted.predict(X)))
    search = GridSearchCV(model, {"n_clusters": [3, 1]}, scoring=score, cv=2).fit(made())
    assert search.best_params_ == {"n_clusters": 1}


def at_the_top(monkeypatch, cls):
    """Put a class at the top of this module, where pickle looks for it."""
    cls.__qualname__ = cls.__name__
    monkeypatch.setattr(sys.modules[__name__], cls.__name__, cls, raising=False)


@pytest.mark.slow
def test_the_checks_of_scikit_learn_pass_on_a_wrapper(monkeypatch):
    """A row of a table is a univariate series: the wrapper adds an axis, and no behaviour."""
    base = pytest.importorskip("sklearn.base")
    from sklearn.utils import estimator_checks, validation

    class Rows(base.ClusterMixin, base.BaseEstimator):
        def __init__(self, n_clusters=3):
            self.n_clusters = n_clusters

        def fit(self, X, y=None):
            X = validation.validate_data(self, X, dtype=np.float64)
            self.labels_ = EMTC(self.n_clusters, **QUICK).fit(X[:, :, None]).labels_
            return self

    at_the_top(monkeypatch, Rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator_checks.check_estimator(Rows())


@pytest.mark.slow
def test_the_checks_of_aeon_pass_on_a_wrapper(monkeypatch):
    pytest.importorskip("aeon.clustering.base")
    from aeon.testing import estimator_checking

    text = (Path(emtc.__file__).parent / "support" / "README.md").read_text()
    code = re.search(r"```python\n(from aeon.*?)```", text, re.DOTALL)[1]
    names = {"__name__": __name__}
    exec(code, names)
    names["EMTC"] = functools.partial(EMTC, **SMALL)
    Aeon = names["AeonEMTC"]
    at_the_top(monkeypatch, Aeon)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = estimator_checking.check_estimator(Aeon, raise_exceptions=False)
    assert len(results) > 15 and set(results.values()) == {"PASSED"}, results


def test_fewer_different_series_than_clusters(monkeypatch):
    monkeypatch.setattr(emtc, "UNCLEAR", 0.0)
    X = np.repeat(np.random.default_rng(0).normal(size=(3, 12, 2)), [6, 5, 4], 0)
    for seed in range(4):
        model = EMTC(4, **{**SMALL, "n_starts": 2}, trial=1, seed=seed).fit(X)
        assert np.isfinite(model.cluster_centers_).all() and model._held == 0
    assert (model.predict(X) == model.labels_).all()


@pytest.mark.parametrize(
    "options", [{"drop": ("intra", "contra", "mev")}, {"n_views": 1, "drop": ("intra", "contra")}]
)
def test_no_loss(options):
    with pytest.raises(ValueError, match="no loss"):
        EMTC(2, **SMALL, **options).fit(made())


def test_a_checkpoint_of_something_else_is_refused():
    state = EMTC(2, **{**SMALL, "n_starts": 2}).fit(made()).checkpoint()
    for X, more in (
        (made(9), {}),
        (made()[::-1] * 3, {}),
        (made(), {"n_starts": 1}),
        (made(T=9), {}),
    ):
        with pytest.raises(ValueError, match="checkpoint"):
            EMTC(2, **{**SMALL, "n_starts": 2, **more}).fit(X, resume=state)
    whole = np.rint(9 * made())  # of exact sums: twice as many samples or steps have the same mean
    state = EMTC(2, **SMALL).fit(whole).checkpoint()
    for axis in (0, 1):
        with pytest.raises(ValueError, match="checkpoint is of other data"):
            EMTC(2, **SMALL).fit(np.concatenate([whole, whole], axis), resume=state)


def test_given_masks_and_strings_of_numpy(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        EMTC(2, **SMALL, mask=np.ones((10, 15, 2), bool)).fit(made())
    padded = np.concatenate([made(), np.full((10, 4, 2), np.nan)], 1)
    mask = np.random.default_rng(0).random(padded.shape) < 0.7
    assert np.array_equal(EMTC(2, **SMALL, mask=mask).fit(padded).mask_, mask & ~np.isnan(padded))
    options = {"encoder": np.str_("bank"), "drop": np.array(["inter"])}
    EMTC(2, **SMALL, **options).fit(made()).save(tmp_path / "m.pt")
    assert EMTC.load(tmp_path / "m.pt").drop == ("inter",)
