"""The critical exercises of the sheet: each edit is applied to a copy, run, and its outcome checked.

    python coursework/test_exercises.py         all measured numbers again, as JSON; minutes

The edit is a replacement in the source, so that an exercise whose line is gone fails here. All of
it runs on the CPU, on BasicMotions' test split (N = 40, T = 100, D = 6, g = 4), seeds 0, 1, 2.
"""

import ast
import json
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


def edited(file, old, new):
    """The module `file` with `old`, which must be there exactly once, replaced by `new`."""
    source = (ROOT / file).read_text()
    assert source.count(old) == 1, f"{file} no longer has the line {old!r} once"
    module = types.ModuleType("edited")
    exec(compile(source.replace(old, new), file, "exec"), module.__dict__)
    return module


def fitted(module=emtc, X=X, seed=0, **options):
    """An EMTC of `module`, fitted, with the ACC of each epoch."""
    curve = []
    model = module.EMTC(4, seed=seed, device="cpu", **options)
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
    """1. EMTC(as_printed=True) against EMTC()."""
    return {"ours": trained()["last"], "printed": trained(as_printed=True)["last"]}


def no_straight_through():
    """2. Nothing teaches the importance network any more."""
    old = "return M.to(S.dtype) + (S - S.detach())"
    moved = {}
    for name, module in (("ours", emtc), ("edited", edited("emtc.py", old, "return M.to(S.dtype)"))):
        start = fitted(module, epochs=0)[0].net_.importance.w
        moved[name] = float((fitted(module, epochs=2)[0].net_.importance.w - start).abs().max())
    return moved


def self_pair():
    """3. A sample is its own positive pair."""
    old = "return same if itself else same.clone().fill_diagonal_(False), ~same"
    module, model = edited("emtc.py", old, "return same, ~same"), fitted(epochs=0)[0]
    E, C = torch.tensor(model.embedding_), torch.tensor(model.labels_)
    out = {}
    for name, m in (("ours", emtc), ("edited", module)):
        anchors = E.clone().requires_grad_()
        pairs = m.cluster_pairs(C, C, itself=False)
        loss = m.contrast(*(m.pair_sum(m.cosine(anchors, anchors), p, 0.1) for p in pairs))
        loss.backward()
        out[name] = {"loss": float(loss), "gradient": float(anchors.grad.norm())}
    return out


def no_whitening():
    """4. The power of the whitening, on networks that are not trained."""
    old = "def whitening(pooled, rank, power=0.75):"
    powers = (0.0, 0.75, 1.0)
    return {p: untrained(edited("emtc.py", old, old.replace("0.75", str(p)))) for p in powers}


def masked_start():
    """5. First clusters from randomly masked series."""
    old = "self._M = torch.ones_like(x, dtype=torch.bool) if observed is None else observed"
    module = edited("emtc.py", old, "self._M = self._first_mask(x, observed)")
    return {"ours": untrained(), "edited": untrained(module)}


def which_mask():
    """6. The evolving mask against a random one and none."""
    return {mask: trained(mask=mask)["last"] for mask in ("evolving", "random", "none")}


def planted():
    """7. Six further variates of noise alone: are they found to be redundant?"""
    noise = np.random.default_rng(0).normal(size=X.shape)
    both = np.concatenate([X, noise], 2)
    out = {"ACC without": [], "ACC with": [], "signal": [], "noise": [], "kept signal": [], "kept noise": []}
    for s in SEEDS:
        out["ACC without"].append(fitted(seed=s, epochs=10)[1][-1])
        model, curve = fitted(X=both, seed=s, epochs=10)
        out["ACC with"].append(curve[-1])
        for name, part in (("signal", np.s_[..., :6]), ("noise", np.s_[..., 6:])):
            out[name].append(float(model.importance_[part].mean()))
            out["kept " + name].append(float(model.mask_[part].mean()))
    return out


def by_labels():
    """8. The epoch chosen by its ACC, and then the seed too."""
    return trained(as_printed=True)


def luck():
    """9. 15 samples in 3 classes: a random labelling, and the best of 201."""
    rng, classes = np.random.default_rng(0), np.repeat([0, 1, 2], 5)
    draws = rng.integers(3, size=(200, 201, 15))
    acc = np.array([[accuracy(classes, d) for d in trial] for trial in draws[:20]])
    rand = [ari(classes, d) for d in draws[20]]
    return {"one": acc.mean(), "best of 201": acc.max(1).mean(), "ARI": float(np.mean(rand))}


def extreme_epsilon():
    """10. epsilon = 0 and 1."""
    found = {e: fitted(epochs=5, epsilon=e) for e in (0.0, 1.0)}
    return {e: {"kept": m.history_[-1]["kept"], "ACC": c[-1]} for e, (m, c) in found.items()}


def greedy_match():
    """11. The largest entry first, against the auction."""
    old = "return float(table[best_match(table)].sum() / table.sum())"
    new = """total, t = 0, table.copy()
    while t.size:
        i, j = np.unravel_index(t.argmax(), t.shape)
        total, t = total + t[i, j], np.delete(np.delete(t, i, 0), j, 1)
    return float(total / table.sum())"""
    classes, clusters = [0] * 19 + [1] * 9, [0] * 10 + [1] * 9 + [0] * 9
    both = (accuracy, edited("metrics.py", old, new).accuracy)
    return dict(zip(("ours", "edited"), (f(classes, clusters) for f in both)))


def one_rival():
    """12. The Bonferroni-Dunn difference as if there were one rival and not eight."""
    tree = ast.parse((ROOT / "experiments/significance.py").read_text())
    named = [n for n in tree.body if getattr(n, "name", "") == "critical_difference"]
    scope = {"math": __import__("math"), "statistics": __import__("statistics")}
    exec(compile(ast.Module(named, []), "significance.py", "exec"), scope)
    alpha = 0.05
    return {"eight": scope["critical_difference"](9, 15),
            "one": scope["critical_difference"](9, 15, alpha * 8)}  # fmt: skip


EXERCISES = (self_pair, luck, greedy_match, one_rival, no_straight_through, no_whitening, masked_start,
             extreme_epsilon, as_printed, which_mask, planted, by_labels)  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    import time
    for exercise in EXERCISES:
        start = time.process_time()
        print(json.dumps({exercise.__name__: exercise(), "s": round(time.process_time() - start, 1)}), flush=True)
