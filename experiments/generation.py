"""What related.py and nc_vqvae.py share: both splits, studies, scores of what is learned or drawn.

FID and IS need a classifier of real data; here a small FCN (Wang et al., arXiv 1611.06455, a
quarter of its width) is trained on the real training series. So THE SCALE IS OUR OWN: these numbers
compare models on one data set in this project, nothing else.

H (N, h) features, X (N, T, D) z-scored series, y int64 (N,) in 0..k-1; all numpy.
"""

from collections import namedtuple

import numpy as np
import store
import torch
from tables import cell, print_table, summary
from torch import nn
from torch.nn import functional

from related.common import Scale, seeded, train

# Both splits with one T: X, y of all series, and train, test, each a pair (X, y).
Halves = namedtuple("Halves", "name X y classes train test")
FCNS = {}  # (data, seed): the classifier behind FID and IS, trained once


def load(name, args):
    """The Halves of a data set, as `store.sweep` asks for them."""
    both, n = store.load(name, args, "all"), len(store.load(name, args, "train").X)
    if both.y is None:
        raise store.UserError(f"{name} has no labels to score against")
    X, y = both.X, both.y
    return Halves(both.name, X, y, both.classes, (X[:n], y[:n]), (X[n:], y[n:]))


def conduct(name, doc, argv, studies, run, modules, data, epochs):
    """Fill results/<name>.json and print a table a study.

    studies: {study: ({variant: options}, metrics)}; run(args, halves, study, options, seed): dict.
    """
    flag = {"--study": dict(nargs="+", choices=[*studies], default=[*studies])}
    args = store.arguments(name, doc, argv, epochs=epochs, quick=1, data=data, options=flag)
    box = store.Store(args, [f"related/{module}" for module in modules], epochs=args.epochs)

    def run_one(halves, variant, seed):
        study, _, variant = variant.partition(": ")
        return run(args, halves, study, studies[study][0][variant], seed)

    for study in args.study:
        store.sweep(box, args, [f"{study}: {v}" for v in studies[study][0]], run_one, load=load)
    texts, table = [], summary(box.runs, {m for _, metrics in studies.values() for m in metrics})
    for study, (variants, metrics) in studies.items():  # all, also those that are stored
        where, rows = [(m, data) for m in metrics for data in table], []
        for v in variants:
            row = [table[data].get(f"{study}: {v}", {}).get(m) for m, data in where]
            rows += [[v, *map(cell, row)]] if any(row) else []
        texts.append(print_table([study, *(f"{m}, {data}" for m, data in where)], rows))
    box.finish(text=texts)


def knn_accuracy(H, y, H_test, y_test, k=5):
    """Share of test rows whose k nearest training rows (Euclid) vote for their class, in [0, 1].

    Each feature is first scaled to [-1, 1] on the training rows, as in NC-VQVAE's published code. A
    tied vote goes to the lowest class number, as in scikit-learn.
    """
    low, high = H.min(0), H.max(0)
    span = np.where(high > low, high - low, 1)
    rows, test = (torch.from_numpy(2 * (A - low) / span - 1).double() for A in (H, H_test))
    near = torch.cdist(test, rows).topk(min(k, len(rows)), largest=False).indices
    votes = functional.one_hot(torch.from_numpy(y)[near]).sum(1)  # (N, k, classes) -> (N, classes)
    return float((votes.argmax(1).numpy() == y_test).mean())


def fit_fcn(X, y, epochs=30, batch_size=16, lr=1e-3, seed=0):
    """An FCN trained on X (N, T, D), y (N,), in eval mode: [body, head], x (B, D, T) -> (B, k)."""
    x, target, layers = torch.from_numpy(X).transpose(1, 2), torch.from_numpy(y), []
    with seeded(seed, "cpu"):
        for n_in, n_out, width in ((X.shape[2], 32, 7), (32, 64, 5), (64, 32, 3)):
            conv = nn.Conv1d(n_in, n_out, width, padding=width // 2)
            layers += [conv, nn.BatchNorm1d(n_out), nn.ReLU()]
        body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())  # (B, 32)
        net = nn.Sequential(body, nn.Linear(32, int(y.max()) + 1)).train()

        def parts_of(rows):
            return {"loss": functional.cross_entropy(net(x[rows]), target[rows])}

        optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
        generator = torch.Generator().manual_seed(seed)
        train(optimizer, parts_of, len(X), epochs, batch_size, generator)
    return net.eval()


@torch.no_grad()
def fcn_outputs(net, X):
    """(features (N, 32), class probabilities (N, k)) of X (N, T, D), float64."""
    H = torch.cat([net[0](x.transpose(1, 2)) for x in torch.from_numpy(X).split(64)])  # (N, 32)
    return H.double().numpy(), net[1](H).double().softmax(1).numpy()


def fid(A, B):
    """Frechet distance of two feature clouds (N, h) seen as Gaussians; from 0 (equal) upwards.

    |mean_A - mean_B|^2 + Tr(S_A + S_B - 2 (S_A S_B)^(1/2)). Falls with more samples, so that only
    values from the same two numbers of series can be compared.
    """
    S, R = np.cov(A, rowvar=False), np.cov(B, rowvar=False)
    value, vector = np.linalg.eigh(S)
    root = vector * np.sqrt(np.maximum(value, 0)) @ vector.T  # S_A^(1/2)
    # S_A S_B and root S_B root have the same eigenvalues, and the latter is symmetric.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ R @ root), 0)).sum()
    return float(((A.mean(0) - B.mean(0)) ** 2).sum() + np.trace(S) + np.trace(R) - 2 * cross)


def inception_score(P):
    """exp of the mean KL(p(y|x) || p(y)), P (N, k) probabilities; from 1 to k, higher is better."""
    P = np.clip(P, 1e-12, 1)
    return float(np.exp((P * np.log(P / P.mean(0))).sum(1).mean()))


def compare(drawn, by_class, halves, seed=0):
    """What series drawn freely, and one for each training series and of its class, are worth.

    FID, IS    of `drawn` (n, T, D) against the test series
    diversity  spread of the drawn series' features over that of the test series; 1: as diverse
    TSTR       train on synthetic, test on real: 5-NN accuracy on the test series of `by_class`

    With the training series in both places: what real data give; their FID comes from the few
    training series that there are, and is the higher for it.
    """
    (X, y), (X_test, y_test) = halves.train, halves.test
    scale = Scale(X)
    key = store.content_hash(halves), seed
    if key not in FCNS:
        FCNS[key] = fit_fcn(scale(X), y, seed=seed)
    (A, P), (B, _) = (fcn_outputs(FCNS[key], scale(rows)) for rows in (drawn, X_test))
    copies, real = (scale(rows).reshape(len(rows), -1) for rows in (by_class, X_test))
    diversity, tstr = A.var(0).sum() / B.var(0).sum(), knn_accuracy(copies, y, real, y_test)
    return {"FID": fid(A, B), "IS": inception_score(P), "diversity": diversity, "TSTR": tstr}
