"""The critical exercises of the sheet: each edit is applied to a copy, run, its outcome checked.

    python coursework/test_exercises.py         all measured numbers again, as JSON; minutes

The edit is a replacement in the source, so that an exercise whose line is gone fails here. All of
it runs on the CPU, on BasicMotions' test split (N = 40, T = 100, D = 6, g = 4), seeds 0, 1, 2, with
one network each (n_starts=1): no trials, so that an edit shows what it does to any network.
"""

import ast
import json
import math
import statistics
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import emtc  # noqa: E402
from metrics import accuracy, ari  # noqa: E402
from uea_loader import load  # noqa: E402

SEEDS = (0, 1, 2)
X, y, *_ = load("BasicMotions", data_dir=ROOT / "data")


EDITS = {  # exercise -> file, what is there exactly once, and what stands there instead
    "straight_through": (
        "emtc.py",
        "return M.to(S.dtype) + (S - S.detach())",
        "return M.to(S.dtype)",
    ),
    "self_pair": (
        "emtc.py",
        "return same if itself else same.clone().fill_diagonal_(False), ~same",
        "return same, ~same",
    ),
    "no_whitening": (
        "emtc.py",
        "def whitening(pooled, rank, power=0.75):",
        "def whitening(pooled, rank, power=0.0):",
    ),
    "whole_whitening": (
        "emtc.py",
        "def whitening(pooled, rank, power=0.75):",
        "def whitening(pooled, rank, power=1.0):",
    ),
    "masked_start": (
        "emtc.py",
        "found = self._clusters(x, observed, observed)\n",
        "found = self._clusters(x, observed, observed & (self._random(x.shape) < o.keep))\n",
    ),
    "greedy_match": (
        "metrics.py",
        "return float(table[best_match(table)].sum() / table.sum())",
        """total, t = 0, table.copy()
    while t.size:
        i, j = np.unravel_index(t.argmax(), t.shape)
        total, t = total + t[i, j], np.delete(np.delete(t, i, 0), j, 1)
    return float(total / table.sum())""",
    ),
}


def edited(exercise):
    """A module from the source with the exercise's edit; the module itself stays as it is."""
    file, old, new = EDITS[exercise]
    module = types.ModuleType("edited")
    exec(compile((ROOT / file).read_text().replace(old, new), file, "exec"), module.__dict__)
    return module


def fitted(module=emtc, X=X, seed=0, **options):
    """An EMTC of `module`, fitted, with the ACC of each epoch."""
    curve = []
    model = module.EMTC(4, n_starts=1, seed=seed, device="cpu", **options)
    model.fit(X, on_epoch=lambda m, _: curve.append(accuracy(y, m.labels_)))
    return model, curve


def trained(**options):
    """ACC of the last epoch, and of the best one, of ten epochs; a list over the seeds."""
    curves = [fitted(epochs=10, seed=s, **options)[1] for s in SEEDS]
    return {"last": [c[-1] for c in curves], "best": [max(c) for c in curves]}


def untrained(module=emtc, X=X):
    return [accuracy(y, fitted(module, X, s, epochs=0)[0].labels_) for s in SEEDS]


# ---- the exercises; each returns its numbers


def as_printed():
    """1. As printed against ours."""
    return {"ours": trained()["last"], "printed": trained(as_printed=True)["last"]}


def straight_through():
    """2. Nothing teaches the importance network any more: how far its last layer moves."""
    moved = {}
    start = fitted(epochs=0)[0].net_.importance.w.detach()
    for name, module in (("ours", emtc), ("edited", edited("straight_through"))):
        moved[name] = float(
            (fitted(module, epochs=2)[0].net_.importance.w.detach() - start).abs().max()
        )
    return moved


def self_pair():
    """3. A sample is its own positive pair: Eq. (10), and the length of its gradient."""
    model = fitted(epochs=0)[0]
    E, C = torch.tensor(model.embedding_), torch.tensor(model.labels_)
    out = {}
    for name, module in (("ours", emtc), ("edited", edited("self_pair"))):
        anchors = E.clone().requires_grad_()
        pairs, sim = module.cluster_pairs(C, C, itself=False), module.cosine(anchors, anchors)
        loss = module.contrast(*(module.pair_sum(sim, p, 0.1) for p in pairs))
        loss.backward()
        out[name] = {"loss": loss.item(), "gradient": anchors.grad.norm().item()}
    return out


def whitening():
    """4. Without the whitening, and with all of it, on networks that are not trained."""
    modules = (emtc, edited("no_whitening"), edited("whole_whitening"))
    return dict(zip(("ours", "none", "whole"), map(untrained, modules)))


def masked_start():
    """5. First clusters from randomly masked series."""
    return {"ours": untrained(), "edited": untrained(edited("masked_start"))}


def which_mask():
    """6. The evolving mask against a random one and none."""
    random = np.random.default_rng(0).random(X.shape) < 0.8
    masks = {"evolving": "evolving", "random": random, "none": "none"}
    return {name: trained(mask=mask)["last"] for name, mask in masks.items()}


def planted():
    """7. Six further variates of noise alone: are they found to be redundant?"""
    both = np.concatenate([X, np.random.default_rng(0).normal(size=X.shape)], 2)
    out = {"ACC": [], "signal": [], "noise": [], "kept signal": [], "kept noise": []}
    for s in SEEDS:
        model, curve = fitted(X=both, seed=s, epochs=10)
        out["ACC"].append(curve[-1])
        for name, part in (("signal", np.s_[..., :6]), ("noise", np.s_[..., 6:])):
            out[name].append(float(model.importance_[part].mean()))
            out["kept " + name].append(float(model.mask_[part].mean()))
    return out


def by_labels():
    """8. The epoch chosen by its ACC, as printed."""
    return trained(as_printed=True)


def luck():
    """9. 15 samples in 3 classes: ACC of a random labelling, of the best of 201, and ARI."""
    rng, classes = np.random.default_rng(0), np.repeat([0, 1, 2], 5)
    draws = rng.integers(3, size=(8, 201, 15))
    acc = np.array([[accuracy(classes, d) for d in trial] for trial in draws])
    rand = float(np.mean([ari(classes, d) for d in draws[:5].reshape(-1, 15)]))
    return {"one": acc.mean(), "best of 201": acc.max(1).mean(), "ARI": rand}


def extreme_epsilon():
    """10. epsilon = 0 and 1."""
    found = {e: fitted(epochs=5, epsilon=e) for e in (0.0, 1.0)}
    return {e: {"kept": m.history_[-1]["kept"], "ACC": c[-1]} for e, (m, c) in found.items()}


def greedy_match():
    """11. The largest entry first, against the auction."""
    classes, clusters = [0] * 19 + [1] * 9, [0] * 10 + [1] * 9 + [0] * 9
    both = (accuracy, edited("greedy_match").accuracy)
    return dict(zip(("ours", "edited"), (f(classes, clusters) for f in both)))


def one_rival():
    """12. The Bonferroni-Dunn difference as if there were one rival and not eight."""
    tree = ast.parse((ROOT / "experiments/significance.py").read_text())
    named = [n for n in tree.body if getattr(n, "name", "") == "critical_difference"]
    scope = {"math": math, "statistics": statistics}
    exec(compile(ast.Module(named, []), "significance.py", "exec"), scope)
    difference = scope["critical_difference"]
    return {"eight": difference(9, 15), "one": difference(9, 15, alpha=0.05 * 8)}


# ---- and what is expected of them


def test_the_lines_that_are_edited_are_there_once():
    for file, old, _ in EDITS.values():
        assert (ROOT / file).read_text().count(old) == 1, f"{file} has not once {old!r}"


@pytest.mark.slow
def test_straight_through():
    found = straight_through()
    assert found["edited"] == 0 < 0.05 < found["ours"]


def test_self_pair():
    found = self_pair()
    assert found["edited"]["loss"] < found["ours"]["loss"] / 5
    assert found["edited"]["gradient"] < found["ours"]["gradient"] / 3


def test_luck():
    found = luck()
    assert found["one"] == pytest.approx(0.50, abs=0.02)
    assert found["best of 201"] == pytest.approx(0.74, abs=0.03) and abs(found["ARI"]) < 0.03


def test_greedy_match():
    assert greedy_match() == pytest.approx({"ours": 18 / 28, "edited": 10 / 28})


def test_one_rival():
    assert one_rival() == pytest.approx({"eight": 2.734, "one": 1.960}, abs=1e-3)


MEASURED = {  # what the exercises returned when the sheet was written, seed by seed
    "as_printed": {"ours": [0.975, 1.0, 1.0], "printed": [1.0, 0.675, 1.0]},
    "whitening": {
        "ours": [0.975, 1.0, 0.95],
        "none": [0.95, 1.0, 1.0],
        "whole": [0.65, 0.8, 0.875],
    },
    "masked_start": {"ours": [0.975, 1.0, 0.95], "edited": [0.95, 0.975, 0.925]},
    "which_mask": {
        "evolving": [0.975, 1.0, 1.0],
        "random": [0.925, 1.0, 1.0],
        "none": [0.95, 1.0, 0.95],
    },
    "planted": {
        "ACC": [0.75, 0.85, 0.85],
        "signal": [0.481, 0.452, 0.492],
        "noise": [0.480, 0.515, 0.477],
        "kept signal": [1.0, 1.0, 1.0],
        "kept noise": [1.0, 1.0, 1.0],
    },
    "by_labels": {"last": [1.0, 0.675, 1.0], "best": [1.0, 0.675, 1.0]},
}


@pytest.mark.campaign
@pytest.mark.parametrize("exercise", MEASURED)
def test_the_measured_numbers(exercise):
    """Means over the seeds; versions of torch differ by a few of 40 series."""
    found = globals()[exercise]()
    for name, value in MEASURED[exercise].items():
        assert np.mean(found[name]) == pytest.approx(np.mean(value), abs=0.1), (name, found)


@pytest.mark.campaign
def test_extreme_epsilon():
    found = extreme_epsilon()
    assert found[0.0]["kept"] == 1 and found[1.0]["kept"] == pytest.approx(1 / 600)
    assert found[0.0]["ACC"] > found[1.0]["ACC"] + 0.2


EXERCISES = (self_pair, luck, greedy_match, one_rival, straight_through, whitening, masked_start,
             extreme_epsilon, as_printed, which_mask, planted, by_labels)  # fmt: skip

if __name__ == "__main__":
    for exercise in EXERCISES:
        print(json.dumps({exercise.__name__: exercise()}), flush=True)
