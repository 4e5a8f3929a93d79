"""SimMTM and MUG judged by what their papers claim and leave open, as far as small data go.

    python experiments/related.py --study mug robust    # default: all; fills results/related.json

Trained on the TRAIN split without labels for --epochs passes, last epoch, judged on the TEST split:
k-means on the test representation (ACC) and 5-NN from train to test, the only place where training
labels enter but for fine-tuning. Beside each the same network untrained, and the raw series.

simmtm    masked share and number of copies; convolutions or a Transformer; rec: squared error of
          the test series, rebuilt from as many copies as in training
tune      classification, encoder and linear layer fine-tuned on 10 % or all of the training labels:
          from scratch, pre-trained here, or pre-trained on another data set
forecast  the last fifth of each series from the rest; errors in z-scored units
mug       the summary's three experiments: concatenation, maximum pooling, InfoNCE
robust    MUG where values are missing in runs of 5 (set to the mean), or noise of so many standard
          deviations is added, in both splits
"""

import sys

import generation
import numpy as np
import store
import torch
from torch.nn import functional

from kmeans import kmeans
from metrics import accuracy
from related import fine_tune
from related.common import Scale
from related.mug import MUG
from related.simmtm import SimMTM, geometric_mask

DATA = ("BasicMotions", "RacketSports")
SOURCE = dict(zip(DATA, DATA[::-1]))  # of transfer
UNTRAINED, TRANSFORMER = {"epochs": 0}, {"encoder": "transformer"}
GRID = {f"ratio {r:g}, M {M}": {"ratio": r, "M": M} for r in (0.25, 0.5, 0.75) for M in (1, 3, 6)}
STARTS = ("conv", "scratch"), ("conv", "here"), ("transformer", "scratch"), ("transformer", "here")
CHANGES = {"": {}, ", concatenation": {"cross": "concat"}, ", maximum": {"fusion": "max"},
           ", InfoNCE": {"objective": "infonce"}}  # fmt: skip
READINGS = {"untrained": UNTRAINED, "A": {}, "masked query": {"reading": "masked-query"}}
STUDIES = {
    "simmtm": (
        {"raw": None, "untrained": UNTRAINED, **GRID, "transformer": TRANSFORMER}
        | {"transformer, untrained": UNTRAINED | TRANSFORMER},
        ("ACC", "5NN", "rec"),
    ),
    "mug": (
        {"raw": None}
        | {f"{r}{c}": READINGS[r] | change for r in READINGS for c, change in CHANGES.items()
           if r != "untrained" or "objective" not in change},
        ("ACC", "5NN", "hit"),
    ),
    "tune": (
        {", ".join(start): start for start in (*STARTS, ("conv", "transfer"))},
        ("10 %", "100 %"),
    ),
    "forecast": (
        {"last value": None} | {", ".join(start): start for start in STARTS},
        ("MSE", "MAE"),
    ),
    "robust": (
        {f"{amount:g} {kind}, {reading}": (kind, amount, options)
         for kind, amount in (("missing", 0.5), ("noise", 1)) for reading, options in
         {"raw": None, **READINGS}.items()},
        ("ACC", "5NN"),
    ),
}  # fmt: skip


def judge(H, H_test, halves, seed):
    """ACC of k-means on the standardised test rows, 5-NN from the training rows."""
    y, y_test = halves.train[1], halves.test[1]
    std = H_test.std(0)
    rows = torch.from_numpy(((H_test - H_test.mean(0)) / np.where(std > 1e-6, std, 1)).astype("f4"))
    labels = kmeans(rows, len(halves.classes), seed=seed).labels.numpy()
    return {"ACC": accuracy(y_test, labels), "5NN": generation.knn_accuracy(H, y, H_test, y_test)}


def represented(method, options, halves, seed, epochs):
    """Scores of a method's representation and the parts of its loss on the test series."""
    (X, _), (X_test, _) = halves.train, halves.test
    if options is None:  # the raw series
        scale = Scale(X)
        return judge(*(scale(A).reshape(len(A), -1) for A in (X, X_test)), halves, seed)
    model = method(seed=seed, device="cpu", **{"epochs": epochs, **options}).fit(X)
    parts = model.evaluate(X_test)
    return judge(model.transform(X), model.transform(X_test), halves, seed) | parts


def like(X, T, D):
    """X (N, T', D') at T steps of its own length, its variates repeated or cut to D."""
    x = torch.from_numpy(X).transpose(1, 2)
    x = functional.interpolate(x, T, mode="linear", align_corners=True).transpose(1, 2)
    return x[:, :, torch.arange(D) % X.shape[2]].numpy()


def simmtm(args, encoder, start, seed):
    """SimMTM to be pre-trained, or to stay untrained if it is to start from scratch."""
    epochs = 0 if start == "scratch" else args.epochs
    return SimMTM(seed=seed, device="cpu", encoder=encoder, epochs=epochs)


def tuned(args, options, halves, seed):
    """Test accuracy of SimMTM fine-tuned with a tenth and with all of the training labels."""
    (X, y), (X_test, y_test) = halves.train, halves.test
    model = simmtm(args, *options, seed)
    if options[1] == "transfer":
        other = generation.load(SOURCE.get(halves.name, DATA[0]), args)
        model.fit(like(other.train[0], *X.shape[1:])).scale_ = Scale(X)
    else:
        model.fit(X)
    order, few = np.random.default_rng(seed).permutation(len(y)), []
    for c in np.unique(y):  # a tenth of each class, at least one series
        few += list(order[y[order] == c][: max(1, round((y == c).sum() / 10))])
    out = {}
    for name, rows in ("10 %", few), ("100 %", slice(None)):
        label_of = fine_tune.classifier(model, X[rows], y[rows], epochs=args.epochs, seed=seed)
        out[name] = float((label_of(X_test) == y_test).mean())
    return out


def forecasted(args, options, halves, seed):
    """MSE and MAE of the last fifth of the test series, in z-scored units."""
    X, X_test = halves.train[0], halves.test[0]
    horizon = X.shape[1] // 5
    past, z = X_test[:, :-horizon], Scale(X[:, :-horizon])(X_test)
    guess = z[:, -horizon - 1, None]
    if options is not None:
        model = simmtm(args, *options, seed).fit(X[:, :-horizon])
        guess = fine_tune.forecaster(model, X, horizon, epochs=args.epochs, seed=seed)(past)
    gap = guess - z[:, -horizon:]
    return {"MSE": float((gap**2).mean()), "MAE": float(np.abs(gap).mean())}


def spoiled(halves, kind, amount, seed):
    """The data with a share of the values missing, or with noise."""
    X, n, (N, T, D) = halves.X, len(halves.train[0]), halves.X.shape
    if kind == "missing":
        keep = geometric_mask(N * D, T, amount, 5, torch.Generator().manual_seed(seed))
        X = np.where(keep.numpy().reshape(N, D, T).swapaxes(1, 2), X, np.nan)
    else:
        noise = np.random.default_rng(seed).normal(size=X.shape)
        X = X + amount * np.nanstd(X[:n], (0, 1)) * noise
    X = X.astype("f4")
    return halves._replace(X=X, train=(X[:n], halves.train[1]), test=(X[n:], halves.test[1]))


def run(args, halves, study, options, seed):
    """One record."""
    if study in ("tune", "forecast"):
        return {"tune": tuned, "forecast": forecasted}[study](args, options, halves, seed)
    if study == "robust":
        halves, options = spoiled(halves, *options[:2], seed), options[2]
    method = SimMTM if study == "simmtm" else MUG
    return represented(method, options, halves, seed, args.epochs)


def main(argv=None):
    modules = ("common", "simmtm", "mug", "fine_tune")
    generation.conduct("related", __doc__, argv, STUDIES, run, modules, DATA, 20)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
