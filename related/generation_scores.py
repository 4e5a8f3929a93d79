"""What codes and generated series are judged by: probes, FID, IS, train on synthetic.

FID and IS need a classifier of real data. The papers download one per data set; here a small FCN
(Wang et al., arXiv 1611.06455, a quarter of its width) is trained on the real training series. So
THE SCALE IS OUR OWN: these numbers compare models on one data set in this project and nothing else.

H (N, h) features, X (N, T, D) z-scored series, y int64 (N,) in 0..k-1; all numpy.
"""
import copy
import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from related.common import ZScore, pick_device, seeded, train


def knn_accuracy(H, y, H_test, y_test, k=5):
    """Share of test rows whose k nearest training rows (Euclid) vote for their class, in [0, 1].

    Each feature is first scaled to [-1, 1] on the training rows. A tied vote goes to the lowest
    class number, as in scikit-learn.
    """
    low, high = H.min(0), H.max(0)
    span = np.where(high > low, high - low, 1)
    scale = lambda A: torch.from_numpy(2 * (A - low) / span - 1).double()
    near = torch.cdist(scale(H_test), scale(H)).topk(min(k, len(H)), largest=False).indices
    votes = F.one_hot(torch.from_numpy(y)[near]).sum(1)  # (N, k, classes) -> (N, classes)
    return float((votes.argmax(1).numpy() == y_test).mean())


def linear_accuracy(H, y, H_test, y_test, l2=1.0):
    """Test accuracy of multinomial logistic regression on standardised features, in [0, 1].

    Minimises sum of cross-entropies + l2/2 |W|^2 by L-BFGS: convex, so there is nothing to seed.
    """
    mean, std = H.mean(0), H.std(0)
    scale = lambda A: torch.from_numpy((A - mean) / np.where(std > 1e-6, std, 1)).double()
    h, target = scale(H), torch.from_numpy(y)
    W = torch.zeros(H.shape[1], int(y.max()) + 1, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(W.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(h @ W + b, target, reduction="sum") + l2 / 2 * (W ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        guess = (scale(H_test) @ W + b).argmax(1).numpy()
    return float((guess == y_test).mean())


class FCN(nn.Module):
    """Three convolutions, mean over time, one linear layer: x (B, T, D) -> logits (B, k)."""

    def __init__(self, D, k):
        super().__init__()
        block = lambda a, b, n: (nn.Conv1d(a, b, n, padding=n // 2), nn.BatchNorm1d(b), nn.ReLU())
        self.body = nn.Sequential(*block(D, 32, 7), *block(32, 64, 5), *block(64, 32, 3))
        self.head = nn.Linear(32, k)

    def features(self, x):
        return self.body(x.transpose(1, 2)).mean(2)  # (B, 32)

    def forward(self, x):
        return self.head(self.features(x))


def fit_fcn(X, y, epochs=60, batch_size=16, lr=1e-3, seed=0, device="auto"):
    """An FCN trained on X (N, T, D), y (N,); in eval mode, the caller's RNG as it was."""
    device = pick_device(device)
    x, target = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    with seeded(seed, device):
        net = FCN(X.shape[2], int(y.max()) + 1).to(device).train()
        loss = lambda i: (F.cross_entropy(net(x[i.to(device)]), target[i.to(device)]), {})
        train(torch.optim.AdamW(net.parameters(), lr=lr), loss, len(X), epochs, batch_size,
              torch.Generator().manual_seed(seed))
    return net.eval()


@torch.no_grad()
def fcn_outputs(net, X):
    """(features (N, 32), class probabilities (N, k)) of X (N, T, D), float64."""
    device = next(net.parameters()).device
    parts = [net.features(x.to(device)) for x in torch.from_numpy(X).split(64)]
    H = torch.cat(parts)  # (N, 32)
    return H.double().cpu().numpy(), net.head(H).double().softmax(1).cpu().numpy()


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


def probe(model, train, test):
    """5-NN and linear accuracy on the frozen representation of `model`, trained on `train`.

    model: a fitted NCVQVAE; train, test: datasets with X, y. Eval mode, the codebook stays.
    """
    out = {}
    for readout in ("codes", "continuous"):
        reader = copy.copy(model)
        reader.readout = readout
        rows = reader.transform(train.X), train.y, reader.transform(test.X), test.y
        out |= {f"knn_{readout}": knn_accuracy(*rows), f"linear_{readout}": linear_accuracy(*rows)}
    return out


def judge(model, train, test, fcn, n=256):
    """How well a fitted model with a prior by class generates.

    fid, is: n series drawn without a class, or as many as there are test series if these are more,
    against the test series. tstr (train on synthetic, test on real): accuracy on `test` of raw 5-NN
    whose training set is generated, one series for each training series and of its class.
    """
    scale = ZScore(train.X)
    samples, P = fcn_outputs(fcn, scale(model.generate(max(n, len(test.X)))))
    real, _ = fcn_outputs(fcn, scale(test.X))
    copies = scale(model.generate(len(train.y), train.y))
    return {"fid": fid(samples, real), "is": inception_score(P),
            "tstr": raw_knn(copies, train.y, scale(test.X), test.y)}


def raw_knn(X, y, X_test, y_test):
    """5-NN accuracy on the series themselves, (N, T, D)."""
    return knn_accuracy(X.reshape(len(X), -1), y, X_test.reshape(len(X_test), -1), y_test)


def reference(train, test, fcn):
    """What the scores of `judge` are for real data: training series in place of generated ones.

    Its fid comes from the few training series there are, and is the higher for it.
    """
    scale = ZScore(train.X)
    (A, _), (B, P) = fcn_outputs(fcn, scale(train.X)), fcn_outputs(fcn, scale(test.X))
    return {"fid": fid(A, B), "is": inception_score(P),
            "tstr": raw_knn(scale(train.X), train.y, scale(test.X), test.y),
            "fcn_accuracy": float((P.argmax(1) == test.y).mean())}


def report(model, train, test, figure):
    """Print probes, FID, IS and TSTR of a fitted NCVQVAE with a prior by class; draw `figure` (a Path)."""
    fcn = fit_fcn(ZScore(train.X)(train.X), train.y, seed=model.seed, device=model.device)
    print("probes, accuracy on test: " + "  ".join(
        f"{k} {v:.3f}" for k, v in probe(model, train, test).items()))
    print("FID and IS by an FCN trained here on the real training series: a scale of its own")
    for title, row in (("generated", judge(model, train, test, fcn)),
                       ("real train", reference(train, test, fcn))):
        print(f"{title:10s} " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    if importlib.util.find_spec("matplotlib") is None:
        return print("no figure: matplotlib is not installed (pip install matplotlib)")
    draw({"original": train.X, model.ssl: model.generate(len(train.X))}, figure)
    print(f"originals beside samples: {figure}")


def draw(groups, path, per_row=6):
    """PNG with one row of axes per group {title: X (N, T, D)}, first variate; needs matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    fig, axes = plt.subplots(len(groups), per_row, figsize=(1.9 * per_row, 1.5 * len(groups)),
                             sharex=True, sharey=True, squeeze=False)
    for row, (title, X) in zip(axes, groups.items()):
        row[0].set_ylabel(title, fontsize=8)
        for axis, series in zip(row, X[np.linspace(0, len(X) - 1, per_row).astype(int)]):
            axis.plot(series[:, 0], linewidth=0.8)
            axis.tick_params(labelsize=6)
    fig.tight_layout()
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, dpi=110)
    plt.close(fig)
