"""Does the mask find what matters? Series with planted redundancy, of which the truth is known.

A window of 15 % of the series, at a random place, holds the wave of its class in two variates; all
else tells nothing of the class. The truth is a bool (N, T, D), True = in the window.

b1     beside the waves, loud bursts of noise, half to once as long, in all variates and classes
s1     instead of the bursts, smooth waves that belong to no class
d5     six of eight variates hold noise only
noise  the waves alone, in noise of two thirds of their strength: the first clusters are poor
"""

import sys
from argparse import Namespace
from collections import namedtuple

import numpy as np
import store
import study
import tables

from emtc import EMTC

SETS = {  # standard deviation of the noise, amplitude of the waves, variates, what distracts
    "b1": (0.3, 1.0, 4, "burst"),
    "s1": (0.3, 1.0, 4, "wave"),
    "d5": (0.5, 1.5, 8, None),
    "noise": (0.95, 1.5, 4, None),
}
CLASSES, SHARE = 4, 0.15
ROWS = {
    "evolving": {},
    "untrained": study.UNTRAINED,
    "no mask": study.NO_MASK,
    "frozen": study.FROZEN,
    "random": study.static("random"),
    "variance 0.3": study.static("variance", 0.3),
    "true mask": lambda dataset, seed, control: {"mask": dataset.truth},
}
MEASURES = ("ACC", "NMI", "AUC", "precision", "recall", "lost", "kept")
Planted = namedtuple("Planted", "X y classes name truth")


def wave(length, rng):
    """A smooth wave (length,): three sines of random amplitude and phase, tapered, of power 1."""
    t = np.arange(length) / length
    parts = [rng.normal() * np.sin(2 * np.pi * (f * t + rng.random())) for f in (1, 2, 3)]
    shape = sum(parts) * np.sqrt(np.sin(np.pi * (t + 0.5 / length)))
    return shape / np.sqrt((shape**2).mean())


def free_place(length, taken, rng, tries=50):
    """A random slice of `length` steps without one of `taken` (T,) bool; None if none is found."""
    for _ in range(tries):
        start = rng.integers(len(taken) - length + 1)
        if not taken[start : start + length].any():
            return slice(start, start + length)
    return None


def planted(name, seed, N=120, T=100):
    """A Planted data set: X (N, T, D) float32, y (N,) int64, truth (N, T, D) bool; name: of SETS.

    Every seed draws other class waves, places and noise.
    """
    noise, amplitude, D, kind = SETS[name]
    length, informative, rng = round(SHARE * T), 2, np.random.default_rng(seed)
    waves = [[amplitude * wave(length, rng) for _ in range(informative)] for _ in range(CLASSES)]
    X, truth = rng.normal(scale=noise, size=(N, T, D)), np.zeros((N, T, D), dtype=bool)
    y = rng.permutation(np.arange(N) % CLASSES)
    for i in range(N):
        start = rng.integers(T - length + 1)
        window = slice(start, start + length)
        X[i, window, :informative] += np.array(waves[y[i]]).T
        truth[i, window, :informative] = True
        for d in range(D if kind else 0):
            n = rng.integers(length // 2, length + 1)
            place = free_place(n, truth[i, :, d], rng)
            if place is not None:
                loud = rng.uniform(0.5, 1) * rng.normal(size=n) if kind == "burst" else wave(n, rng)
                X[i, place, d] += loud
    return Planted(X.astype(np.float32), y.astype(np.int64), list("abcd"), name, truth)


def auc(importance, truth):
    """Chance that an entry inside is more important than one outside; ties count half."""
    values, place, n = np.unique(importance.ravel(), return_inverse=True, return_counts=True)
    rank = (np.cumsum(n) - (n - 1) / 2)[place.ravel()]  # 1 for the smallest, ties share their mean
    inside = truth.ravel()
    a, b = int(inside.sum()), int((~inside).sum())
    return float((rank[inside].sum() - a * (a + 1) / 2) / (a * b))


def against_truth(mask, truth):
    """Shares, of mask, truth (N, T, D) bool, mask True = keep: precision, of what is masked that is
    redundant; recall, of the redundant that is masked; lost, of the true windows that is masked."""
    right, n = int((~mask & ~truth).sum()), int((~mask).sum())
    precision, recall = right / n if n else None, right / int((~truth).sum())
    return {"precision": precision, "recall": recall, "lost": float((~mask)[truth].mean())}


def fit(args, dataset, seed, **options):
    """One record: what `store.fitted` tells, and what only the truth can tell."""
    model, record = store.fitted(dataset, seed, **{"epochs": args.epochs, **options})
    learned = np.ptp(model.importance_) > 0  # constant where no importance network is asked
    record["AUC"] = auc(model.importance_, dataset.truth) if learned else None
    return {**record, **against_truth(model.mask_, dataset.truth)}


def follow(args, name):
    """{"series", "truth" (T,), "importance", "masked" (epochs, T)} of a series' first variate.

    Of all series, by the first seed, the one of whose first variate most is masked over the epochs,
    at the last of `--epsilon`.
    """
    seed, seen = args.seeds[0], {"importance": [], "masked": []}
    data = planted(name, seed)

    def watch(model, record):
        seen["importance"].append(model.importance_[:, :, 0])
        seen["masked"].append(~model.mask_[:, :, 0])

    epsilon = args.epsilon[-1] if args.epsilon else study.DEFAULTS["epsilon"]
    EMTC(CLASSES, seed=seed, epochs=args.epochs, epsilon=epsilon).fit(data.X, on_epoch=watch)
    seen = {k: np.array(v) for k, v in seen.items()}  # (epochs, N, T)
    i = int(seen["masked"].sum((0, 2)).argmax())
    followed = {k: v[:, i] for k, v in seen.items()}
    return {"series": data.X[i, :, 0], "truth": data.truth[i, :, 0], **followed}


def draw(axes, followed):
    """A column a data set: the series with its true window, importance and mask over the epochs."""
    for column, (name, one) in zip(axes.T, followed.items()):
        T, (first, *_, last) = len(one["series"]), np.flatnonzero(one["truth"])
        column[0].axvspan(first - 0.5, last + 0.5, color="#cfe3f1", lw=0)
        column[0].plot(one["series"], color=tables.COLOURS[0], lw=1.2)
        column[0].set(title=name, xlim=(-0.5, T - 0.5))
        for axis, key, look in zip(column[1:], ("importance", "masked"), ("viridis", "Greys")):
            extent = (-0.5, T - 0.5, len(one[key]) + 0.5, 0.5)
            axis.imshow(one[key], look, aspect="auto", vmin=0, vmax=1, extent=extent)
            for edge in (first - 0.5, last + 0.5):
                axis.axvline(edge, color=tables.COLOURS[1], lw=1)
            axis.grid(visible=False)
        column[2].set_xlabel("timestamp")
    for axis, text in zip(axes[:, 0], ("value", "importance\nepoch", "masked (black)\nepoch")):
        axis.set_ylabel(text)


def main(argv=None):
    """Train, print, save, draw the first seed."""
    epsilon = {"nargs": "+", "type": float, "default": [], "help": "rows at these thresholds"}
    args = store.arguments("planted", __doc__, argv, seeds=range(5), options={"--epsilon": epsilon})
    args.data = [n for n in args.data if n in SETS] or (["b1"] if args.quick else list(SETS))
    rows = {**ROWS, **study.epsilons("evolving", args.epsilon)}
    box = store.Store(args)
    for seed in args.seeds:  # each draws its own data
        one = Namespace(**{**vars(args), "seeds": [seed]})
        study.fill(box, one, rows, fit, lambda name, one: planted(name, one.seeds[0]))
    study.finish(box, "evolving", MEASURES)
    followed = {name: follow(args, name) for name in args.data if args.epochs and name != "noise"}
    if followed:
        shape = {"nrows": 3, "ncols": len(followed), "squeeze": False, "height": 6.5}
        tables.picture(args, lambda axes: draw(axes, followed), **shape)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
