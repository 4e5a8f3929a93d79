"""EMTC: evolving-masked multivariate time-series clustering (Tan et al. 2025, arXiv 2511.17008).

Read it beside the paper, from top to bottom: IVM (Eqs. 1-3), MEV (4), CRL (5-7), CMC (8-12), the
total loss (13), the networks that hold the weights, and Algorithm 1 as the loop in `EMTC.fit`. The
home of an equation is the function whose docstring ends with it: `grep -F "Eq. (3)." emtc.py`.

N samples, T timestamps, D variates, V views, g clusters; B samples of a batch; h channels, 4 in IVM
and `width` in MEV; q pooled numbers of a view, p numbers of a fused embedding; n rows, of
timestamps or of samples, as each docstring says. X is (N, T, D) float32, as in the paper. Inside,
variates come before time, (B, D, T), as torch's convolutions want it. A mask is bool, True = keep
(M = 1 in Eq. 3). `observed` is bool too, True = measured, and None where nothing is missing. A
missing entry (NaN in X) is 0 as input, is never kept by a mask and counts in no reconstruction; a
timestamp at which nothing was observed counts in no loss and no pooling.
"""

import inspect
import math
import numbers
import os
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as nnf

from kmeans import kmeans
from metrics import match

MASKS = ("evolving", "frozen", "random", "uniform", "variance", "frequency", "none")
PARTS = ("ivm", "mev", "intra", "inter", "contra")
KERNELS = (5, 9, 3)  # kernel size of view 1, 2, 3, and again
RANK = 16  # p, where the fusion is learned
TIMESTAMPS = 2048  # so many timestamps of a batch, drawn at random, enter the reconstruction losses
OTHERS = 4096  # so many samples at most stand against an anchor in the contrast
SETTLED = 0.01  # share of the labels that may still change in an epoch with settled clusters
STAY = 0.8  # share of the samples that must be recognised in spite of what is hidden

# ---- IVM: importance-aware variate-wise masking


def single_variate_embedding(x, W1, b1, W2, b2, observed=None):
    """Z^(d) = f^(d)(x^(d)): two convolutions over time, each variate with kernels of its own.

    x, observed (B, D, T); W1 (D h, 1, 3), dilation 1; W2 (D h, h, 3), dilation 2; b1, b2 (D h,)
    -> Z (B, D, T, h).  Eq. (1).
    """
    B, D, T = x.shape
    Z = nnf.conv1d(x, W1, b1, padding=1, groups=D).relu().view(B, D, -1, T)  # (B, D, h, T)
    Z = Z if observed is None else Z * observed[:, :, None]
    Z = nnf.conv1d(Z.flatten(1, 2), W2, b2, padding=2, dilation=2, groups=D)
    return Z.view(B, D, -1, T).transpose(2, 3).contiguous()  # (B, D, T, h)


def attention(Q, K, Z, observed=None):
    """S^(d) = softmax(Q K^T / sqrt(h)) Z: what each timestamp gathers from its whole series.

    Q (B, D, T, h); K, Z (B, D, n, h) and observed (B, D, n) at the n timestamps attended to
    -> S (B, D, T, h). Torch's fused kernels do not store the (T, n) weights.  Eq. (2).
    """
    if observed is not None:  # a softmax over no key would be NaN: such a series attends to all
        observed = (observed | ~observed.any(2, keepdim=True))[:, :, None]
    return nnf.scaled_dot_product_attention(Q, K, Z, observed)


def importance(S, w, observed=None):
    """From a vector to a number in (0, 1): S (B, D, T, h), w (h,) -> (B, D, T); .5 where missing.

    NOTE(paper): Eq. (3) compares S(t) with a number, but Eq. (2) gives a vector. A learned linear
    map makes it a number. It is standardised over all timestamps and variates of the sample, since
    an entry is redundant only in comparison with the others, and the sigmoid puts it into (0, 1).
    """
    S = S @ w  # (B, D, T)
    seen = torch.ones_like(S) if observed is None else observed.to(S.dtype)
    n = seen.sum((1, 2), keepdim=True)
    S = (S - (S * seen).sum((1, 2), keepdim=True) / n) * seen
    return torch.sigmoid(S / (S.square().sum((1, 2), keepdim=True) / n + 1e-12).sqrt())


def threshold(S, observed, epsilon):
    """M(t) = 1 where S(t) >= epsilon, else 0; S (B, D, T), M bool, True = keep.

    A sample is never masked away whole: where nothing passes, its most important entry stays. So
    epsilon = 0 keeps all that is observed, and epsilon = 1 one entry of each sample.  Eq. (3).
    """
    M = S >= epsilon
    if observed is not None:
        M, S = M & observed, S.masked_fill(~observed, -1)
    best = torch.zeros_like(M).flatten(1).scatter_(1, S.flatten(1).argmax(1, keepdim=True), True)
    return M | (best.view_as(M) & ~M.flatten(1).any(1)[:, None, None])


def straight_through(M, S):
    """Forward exactly the 0/1 mask M, backward the importance S; both (B, D, T).

    NOTE(paper): Eq. (3) has no derivative, so as printed nothing would teach the importance
    network; in the authors' published code nothing does. The straight-through estimator (Bengio et
    al. 2013, arXiv 1308.3432) makes the mask a learned one.
    """
    return M.to(S.dtype) + (S - S.detach())


def static_mask(kind, x, observed, keep, generator):
    """The masks that do not learn (Fig. 3), bool like x (N, D, T), True = keep the share `keep`.

    random: of all entries; uniform: of the timestamps, evenly; of each variate, variance: where a
    window of five varies most, frequency: where the upper half of the spectrum has most energy;
    none: keep all.
    """
    T = x.shape[2]
    if kind == "none":
        M = torch.ones_like(x, dtype=torch.bool)
    elif kind == "random":
        M = torch.rand(x.shape, generator=generator).to(x.device) < keep
    elif kind == "uniform":
        steps = (torch.arange(T + 1, dtype=torch.float64) * max(keep, 1 / T)).floor()
        M = (steps[1:] > steps[:-1]).to(x.device).expand(x.shape)
    else:
        if kind == "variance":
            mean, square = (nnf.avg_pool1d(v, 5, 1, 2, count_include_pad=False) for v in (x, x * x))
            score = square - mean * mean
        else:
            upper = torch.arange(T // 2 + 1, device=x.device) >= (T // 2 + 1) // 2
            score = torch.fft.irfft(torch.fft.rfft(x) * upper, n=T).abs()
        seen = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        rank = score.masked_fill(~seen, -math.inf).argsort(2, descending=True).argsort(2)
        M = rank < seen.sum(2, keepdim=True) * keep
    return M if observed is None else M & observed


# ---- MEV: multi-endogenous views


def views(encoders, x):
    """F^(v) = f^(v)(x) for V encoders: masked input x (B, D, T) -> (V, B, h, T).  Eq. (4)."""
    return torch.stack([f(x) for f in encoders])


# ---- CRL: consistency and reconstruction learning


def intra_loss(X, X_v, observed=None):
    """Sum over the views of ||X - X^(v)||^2.

    X, observed (n, D) at n timestamps, X_v (V, n, D) -> ().
    NOTE(paper): a mean over the observed entries in place of the squared norm, here and in Eqs. (7)
    and (10), so that alpha and beta mean the same on each data set.  Eq. (5).
    """
    seen = torch.ones_like(X) if observed is None else observed
    return ((X - X_v).square() * seen).sum() / seen.sum().clamp_min(1)


def inter_loss(F, H, pairs):
    """Sum over the ordered pairs of views (i, j) of ||F^(j) - H_ij(F^(i))||^2.

    F (V, n, h) at n timestamps; H maps (pairs, n, h) to (pairs, n, h), each pair by its own
    network.
    NOTE(paper): H, as R in Eq. (5), sees each timestamp alone; both sides get gradient.  Eq. (6).
    """
    i, j = map(list, zip(*pairs, strict=True))
    return sum(pair_loss(F_j, F_ij) for F_j, F_ij in zip(F[j], H(F[i]), strict=True))


def pair_loss(F_j, F_ij):
    """||F^(j) - F^(i->j)||^2 as a mean: view j and what H made of view i, (n, h).  Eq. (7)."""
    return (F_j - F_ij).square().mean()


# ---- CMC: clustering-guided contrast


def pool_shares(F, observed_t=None):
    """F (V, B, h, T) -> (V, B, 2 h), over the timestamps where anything was observed, (B, T).

    NOTE(paper): the pooling before Eq. (8) is left open, and it decides much. Here it is two
    numbers a channel: the mean of tanh(3 F), a soft share of the time for which a pattern is there,
    and the maximum, how strongly it is there.
    """
    peak = F if observed_t is None else F.masked_fill(~observed_t[:, None], -math.inf)
    return torch.cat([pool_mean(torch.tanh(3 * F), observed_t), peak.amax(3)], 2)


def pool_mean(F, observed_t=None):
    """F (V, B, h, T) -> its mean over the observed timestamps, (V, B, h); the plainest pooling."""
    if observed_t is None:
        return F.mean(3)
    return (F * observed_t[:, None]).sum(3) / observed_t.sum(1)[:, None]


def fuse(pooled, shift, scale, W):
    """F^(fused) of the pooled views (V, B, q): side by side, standardised, times W, of unit length.

    shift, scale (V q,), W (V q, p) -> (B, p).
    NOTE(paper): the paper averages the views (fusion="average" does), "which can be extended to
    weighted combinations". This is a learned one, which starts as a `whitening`.  Eq. (8).
    """
    side_by_side = pooled.transpose(0, 1).flatten(1)  # (B, V q)
    return nnf.normalize((side_by_side - shift) / scale @ W, dim=1)


def whitening(pooled, rank, power=0.75):
    """Where the fusion starts: pooled views (V, N, q) -> shift, scale (V q,), W (V q, rank).

    Pooled channels repeat each other, and k-means would follow those that most others repeat. So
    they are standardised, reduced to `rank` principal components, and these are brought nearer to
    one scale; with power 1 they would have the same.
    """
    pooled = pooled.transpose(0, 1).flatten(1)  # (N, V q)
    shift, scale = pooled.mean(0), pooled.std(0, correction=0)
    scale = torch.where(scale > 1e-5, scale, 1)
    _, s, components = torch.linalg.svd((pooled - shift) / scale, full_matrices=False)
    p = max(1, min(rank, len(s) - 1))
    different = s[0] > 1e-3  # otherwise all samples are equal but for rounding
    s = (s[:p] / s[0].clamp_min(1e-12)).clamp_min(1e-2)
    return shift, scale, nnf.pad(components[:p].T * s**-power * different, (0, rank - p))


def cluster(E, g, n_init, generator, before=None):
    """C = Cluster(F) by k-means on E (N, p) -> labels (N,) int64, centres (g, p).

    Clusters have no order: they are numbered as far as may be like the labels `before`.  Eq. (9).
    """
    found = kmeans(E, g, n_init=n_init, seed=generator)
    if before is None:
        return found.labels, found.centers
    table = torch.bincount(found.labels * g + before, minlength=g * g).view(g, g)
    new = torch.as_tensor(match(table.cpu().numpy())[1], device=E.device)  # now c was new[c] before
    return new[found.labels], found.centers[new.argsort()]


def contrast(L_plus, L_minus):
    """-log(L+ / (L+ + L-)), the mean over the anchors; both (B,), given as logarithms -> ().

    In logarithms no tau overflows. An anchor without a positive pair does not count.  Eq. (10).
    """
    paired = L_plus > -math.inf
    loss = torch.logaddexp(L_plus, L_minus) - L_plus
    return torch.where(paired, loss, 0).sum() / paired.sum().clamp_min(1)


def pair_sum(sim, pairs, tau):
    """log of the sum of exp(sim / tau) over an anchor's positive pairs (L+), or negative ones (L-).

    sim (B, n) cosine similarities, pairs (B, n) bool, True = counts -> (B,).  Eq. (11).
    """
    return (sim / tau).masked_fill(~pairs, -math.inf).logsumexp(1)


def cosine(E, anchors):
    """sim(i, j) = F_i . F_j / (|F_i| |F_j|): E (n, p), anchors (B, p) -> (B, n).  Eq. (12)."""
    return nnf.normalize(anchors, dim=1) @ nnf.normalize(E, dim=1).T


def cluster_pairs(C_i, C_j, itself):
    """Positive pairs, of one cluster, and negative ones: C_i (B,), C_j (n,) -> two bool (B, n).

    C_j begins with C_i. `itself`: whether a sample is a positive pair of its own.
    NOTE(paper): it is, where the two sides are different versions of it; the paper has no versions.
    """
    same = C_i[:, None] == C_j
    return same if itself else same.clone().fill_diagonal_(False), ~same


def total_loss(contra, intra, inter, alpha, beta):
    """L_total = L_contra + alpha L_intra + beta L_inter.  Eq. (13)."""
    return contra + alpha * intra + beta * inter


# ---- the networks, which hold the weights that the equations use


def weights(shape, fan_in, generator):
    """Uniform within 1 / sqrt(fan_in), torch's own start, but from a generator of one's own."""
    return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in))


class Importance(nn.Module):
    """Eqs. (1), (2) and the number that Eq. (3) compares: x (B, D, T) -> (B, D, T) in (0, 1)."""

    def __init__(self, D, h, max_keys, generator):
        super().__init__()
        self.max_keys = max_keys
        # Normal and orthogonal, so that Z and Q K^T begin near unit size: with smaller weights the
        # softmax is so even that S hardly varies over time.
        W1, W2, Q, K = (
            torch.randn(shape, generator=generator)
            for shape in ((D * h, 1, 3), (D * h, h, 3), (h, h), (h, h))
        )
        self.W1, self.b1 = nn.Parameter(W1 * (2 / 3) ** 0.5), nn.Parameter(torch.zeros(D * h))
        self.W2, self.b2 = nn.Parameter(W2 * (2 / 3 / h) ** 0.5), nn.Parameter(torch.zeros(D * h))
        self.Q, self.K = (nn.Parameter(torch.linalg.qr(W)[0]) for W in (Q, K))
        self.w = weights((h,), h, generator)

    def forward(self, x, observed=None):
        Z = single_variate_embedding(x, self.W1, self.b1, self.W2, self.b2, observed)
        step = math.ceil(x.shape[2] / self.max_keys)  # each timestamp attends to every step-th one
        Z_k, seen = Z[:, :, ::step], None if observed is None else observed[:, :, ::step]
        return importance(attention(Z @ self.Q, Z_k @ self.K, Z_k, seen), self.w, observed)


class Encoder(nn.Module):
    """f^(v) of Eq. (4): convolutions side by side, dilations 1, 2, 4, ... up to the series' length.

    NOTE(paper): "dilated convolution" is all that the paper says, and nothing of how views differ.
    Here by kernel size, k. Every second kernel of a dilation sums to zero: about half of the
    channels see a pattern's shape wherever its level lies, the others see the level.
    """

    def __init__(self, D, T, h, k, generator):
        super().__init__()
        n = min(h, 1 + int(math.log2(max(1, (T - 1) / (k - 1)))))  # dilations
        sizes = [(h + e) // n for e in range(n)]
        self.W = nn.ParameterList(torch.randn((c, D, k), generator=generator) for c in sizes)
        self.b = nn.ParameterList(torch.zeros(c) for c in sizes)
        self.mix, self.mix_b = nn.Parameter(torch.zeros(h, h, 1)), nn.Parameter(torch.zeros(h))

    def forward(self, x):
        """x (B, D, T) -> F^(v) (B, h, T); the mixing of channels starts as nothing."""
        F = torch.cat([self.convolve(x, e) for e in range(len(self.W))], 1)
        return F + nnf.conv1d(F.relu(), self.mix, self.mix_b)

    def convolve(self, x, e):
        """The convolutions of dilation 2^e: (B, D, T) -> (B, c, T)."""
        W, padding = self.W[e], 2**e * (self.W[e].shape[2] // 2)
        odd = torch.arange(len(W), device=x.device)[:, None, None] % 2
        W = (W - odd * W.mean(2, keepdim=True))[:, :, None]
        # As an image one pixel high, channels last: dilated conv1d takes half as long again.
        image = x[:, :, None].contiguous(memory_format=torch.channels_last)
        return nnf.conv2d(image, W, self.b[e], padding=(0, padding), dilation=(1, 2**e))[:, :, 0]

    def scale(self, x):
        """Scale each kernel so that its channel has unit variance on x (N, D, T)."""
        for e, W in enumerate(self.W):
            W.data /= self.convolve(x, e).std((0, 2)).clamp_min(1e-6)[:, None, None]


class Stack(nn.Module):
    """The plainest reading of Eq. (4): three convolutions, dilations 1, 2, 4, one after another."""

    def __init__(self, D, T, h, k, generator):
        super().__init__()
        self.W = nn.ParameterList(weights((h, c, k), c * k, generator) for c in (D, h, h))
        self.b = nn.ParameterList(weights((h,), c * k, generator) for c in (D, h, h))

    def forward(self, x):
        """x (B, D, T) -> F^(v) (B, h, T), with ReLU between."""
        for e, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            pad = 2**e * (W.shape[2] // 2)
            x = nnf.conv1d(x.relu() if e else x, W, b, padding=pad, dilation=2**e)
        return x

    def scale(self, x):
        """Torch's own start stays as it is."""


class MLPs(nn.Module):
    """G multi-layer perceptrons side by side: (G, n, sizes[0]) -> (G, n, sizes[-1])."""

    def __init__(self, G, sizes, generator):
        super().__init__()
        layers = list(zip(sizes, sizes[1:]))
        self.W = nn.ParameterList(weights((G, a, b), a / 3, generator) for a, b in layers)
        self.b = nn.ParameterList(torch.zeros(G, 1, b) for _, b in layers)

    def forward(self, x):
        for layer, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            x = torch.baddbmm(b, x.relu() if layer else x, W)
        return x


class Network(nn.Module):
    """All that is learned: importance (IVM), encoders f^(v) (MEV), decoders R, H (CRL), fusion."""

    def __init__(self, D, T, o, generator):
        super().__init__()
        h, V, kind = o.width, o.n_views, Encoder if o.encoder == "bank" else Stack
        kernels = [KERNELS[v % len(KERNELS)] for v in range(V)]
        self.importance = Importance(D, 4, o.max_keys, generator)
        self.encoders = nn.ModuleList(kind(D, T, h, k, generator) for k in kernels)
        self.pairs = [(i, j) for i in range(V) for j in range(V) if i != j]
        self.R = MLPs(V, [h] + [32] * 5 + [D], generator)  # six layers, as the paper has it
        self.H = MLPs(len(self.pairs), [h, 32, 32, 32, h], generator)  # four layers
        self.pool, self.learned = POOLINGS[o.pooling], o.fusion == "learned"
        q = V * h * (2 if self.pool is pool_shares else 1)
        self.fusion = nn.Parameter(torch.zeros(q, RANK))
        self.register_buffer("shift", torch.zeros(q))
        self.register_buffer("scale", torch.ones(q))

    def embed(self, F, observed=None):
        """Views F (V, B, h, T) -> F^(fused) (B, p); fusion="average" is the mean over the views."""
        pooled = self.pool(F, None if observed is None else observed.any(1))
        return fuse(pooled, self.shift, self.scale, self.fusion) if self.learned else pooled.mean(0)


POOLINGS = {"shares": pool_shares, "mean": pool_mean}

# ---- Algorithm 1: the estimator


class EMTC:
    """Evolving-masked clustering of multivariate time series; Algorithm 1 of arXiv 2511.17008.

    n_clusters: g. n_views: V. tau > 0: Eq. (11). alpha, beta >= 0: Eq. (13). width: h. lr, epochs,
    batch_size: of Adam; 0 epochs = untrained; a batch holds at most a quarter of the samples,
    rounded up. seed: governs weights, batches, masks and k-means; no other random numbers are
    touched.
    epsilon: threshold of Eq. (3) in [0, 1]; None = from .15 by at most .05 an epoch to where
    Eq. (10) is lowest, within .05 and .7.
    mask: "evolving"; "frozen", the importance network as drawn; static with the share `keep`:
    "random", "uniform", "variance", "frequency"; "none"; or a bool array (N, T, D), True = keep.
    `keep` is also the share of the random first mask of "evolving" and "frozen".
    hide: the largest mean chance of an entry to be hidden in training; 0 = one version, all shown.
    drop: parts to leave out, any of "ivm", "mev", "intra", "inter", "contra".
    n_starts: networks drawn; that with the lowest Eq. (10) is trained. n_init: starts of k-means.
    patience: converged = at most 1 % of the labels changed in each of so many last epochs, and
    `hide` is reached. max_keys: timestamps attended to in Eq. (2), evenly spaced; up to that length
    exact.
    encoder "bank" or "stack", pooling "shares" or "mean", fusion "learned" or "average", mask_lr,
    by which lr is multiplied for the importance network: where the paper is silent, ours and the
    plainest. as_printed=True takes the plainest of these (AS_PRINTED); all else stays as given.
    device: "auto" (CUDA if there), "cpu", "cuda", ...

    X is (N, T, D), or a list of N series (T_i, D); NaN = missing. ValueError where it cannot be
    used. No method looks at labels; y is there for scikit-learn's sake. After `fit`, copies in
    numpy: `labels_` (N,) int64, `cluster_centers_` (g, p), `embedding_` (N, p), `importance_` (N,
    T, D) in (0, 1), 0 where missing, .5 for masks that do not learn, `mask_` (N, T, D) bool, True =
    keep.
    `history_` is a dict per epoch: epoch; its mean losses total, contra, intra, inter; label_change
    (share of the samples); and, as the next epoch would train with them, kept (share of the
    observed entries that mask_ keeps), hidden (mean chance) and epsilon.
    """

    # fmt: off
    def __init__(self, n_clusters=8, *, n_views=2, epsilon=None, tau=0.1, alpha=0.1, beta=0.1,
                 lr=1e-3, epochs=40, batch_size=64, width=64, mask="evolving", keep=0.8, hide=0.5,
                 drop=(),
                 n_starts=4, n_init=50, patience=10, max_keys=1024, mask_lr=30.0, encoder="bank",
                 pooling="shares", fusion="learned", as_printed=False, seed=0, device="auto"):
        given = locals()
        for name in OPTIONS:
            setattr(self, name, given[name])
    # fmt: on

    @torch.enable_grad()
    def fit(self, X, y=None, *, on_epoch=None, resume=None):
        """Algorithm 1. `on_epoch(model, record)` is called after every epoch, when `labels_` etc.
        are that epoch's; `resume` is a `checkpoint()` to go on from, on a CPU to the same bits as a
        run that never stopped. FloatingPointError if a loss or an embedding is not finite.

        NOTE(paper): lines 3 and 6, the mask set and the clusters of all series, are renewed once an
        epoch, at its end; a batch uses those of the epoch before.
        """
        o = self._o = settings(self)
        x, observed = self._prepare(X, fitting=True)  # (N, D, T) both
        N, B = len(x), min(o.batch_size, math.ceil(len(x) / 4))
        self._begin(x, observed)  # line 1
        if resume is not None:
            self._restore(resume)
        net = self.net_
        while len(self.history_) < o.epochs and not self._converged():  # lines 2 and 9
            losses = torch.zeros(4, device=x.device)
            order = torch.randperm(N, generator=self._rng).repeat(2).to(x.device)
            for start in range(0, N, B):
                i = order[start : min(start + B, N)]  # the batch
                # NOTE(paper): Eq. (10) is over all N. Here over at most OTHERS, the batch among
                # them; those outside it stand with their last embeddings, without gradient.
                j = order[start : start + max(len(i), min(N, OTHERS))]  # begins with i
                x_i, observed_i = x[i], some(observed, i)

                # Line 3, IVM: forward the last epoch's mask set, backward the importance of now.
                S, M = self._S[i], self._M[i].to(x.dtype)  # (B, D, T)
                if o.mask == "evolving":
                    S = net.importance(x_i, observed_i)
                    M = straight_through(self._M[i], S)

                # Line 4, MEV: the views (V, B, h, T) of one or two versions of each series.
                Fs = [views(net.encoders, x_i * M * shown) for shown in self._versions(S.detach())]

                # Line 5, CRL: reconstruction from the version in which less is hidden.
                at = self._timestamps(observed_i, *x_i.shape)  # (n,)
                F, X_n = (
                    Fs[-1].transpose(2, 3).flatten(1, 2)[:, at],
                    rows(x_i)[at],
                )  # (V, n, h), (n, D)
                intra = inter = contra = x.new_zeros(())
                if "intra" not in o.drop:
                    intra = intra_loss(X_n, net.R(F), some(rows(observed_i), at))
                if "inter" not in o.drop and net.pairs:
                    inter = inter_loss(F, net.H, net.pairs)

                # Line 7, CMC: anchors of one version, all samples in the other. With hide = 0
                # there is one version, which stands against itself.
                E = [net.embed(F_v, observed_i) for F_v in Fs]  # of each version (B, p)
                if "contra" not in o.drop:
                    positive, negative = cluster_pairs(self._C[i], self._C[j], itself=len(E) == 2)
                    for a, b in enumerate(reversed(range(len(E)))):
                        sim = cosine(torch.cat([E[b], self._others[b, j[len(i) :]]]), E[a])
                        L_plus, L_minus = (pair_sum(sim, p, o.tau) for p in (positive, negative))
                        contra = contra + contrast(L_plus, L_minus) / len(E)

                # Line 8: the total loss and a step of Adam.
                total = total_loss(contra, intra, inter, o.alpha, o.beta)
                self._adam.zero_grad()
                total.backward()
                self._adam.step()
                self._others[:, i] = torch.stack(E).detach()
                losses += torch.stack([total, contra, intra, inter]).detach() * (len(i) / N)

            # Lines 3, 4 and 6 for all series: what the next epoch starts with and this one reports.
            self._update(x, observed, losses)
            if on_epoch is not None:
                on_epoch(self, self.history_[-1])
        return self

    def _begin(self, x, observed):
        """Line 1: networks, first clusters, first mask set.

        NOTE(paper): what a random network makes of the series differs much from draw to draw, and
        contrast confirms the clusters that it is given. So of `n_starts` networks the one whose
        clusters have the lowest Eq. (10) is trained, and the first clusters are those of the series
        as observed.
        The first mask set is the paper's: random, keeping the share `keep`.
        """
        o, self.history_, self._rng = self._o, [], torch.Generator().manual_seed(self._o.seed)
        self._S, self._epsilon = torch.full_like(x, 0.5), 0.15 if o.epsilon is None else o.epsilon
        self._M = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        drawn = []
        for _ in range(o.n_starts):
            self.net_ = Network(*self._shape, o, self._rng).float().to(x.device)
            self._scale(x, observed)
            drawn.append((*self._clusters(x, observed, self._M), self.net_))
        _, self._E, self._C, self._centers, self.net_ = min(drawn, key=lambda d: d[0])
        times = {"importance": o.mask_lr, "fusion": 3}
        self._adam = torch.optim.Adam(
            {"params": [w], "lr": o.lr * times.get(name.split(".")[0], 1)}
            for name, w in self.net_.named_parameters()
        )
        self._others = self._E.repeat(2 if o.hide else 1, 1, 1)  # last embeddings of each version
        self._hidden = self._bearable(x, observed) if o.hide and o.epochs else 0.0
        self._M = self._first_mask(x, observed)

    @torch.no_grad()
    def _scale(self, x, observed):
        """Fit the scales of the kernels and the start of the fusion to all series."""
        for f in self.net_.encoders:
            f.scale(x)
        if self.net_.learned:
            pooled = [
                self.net_.pool(
                    views(self.net_.encoders, x[i]),
                    None if observed is None else observed[i].any(1),
                )
                for i in self._batches(x)
            ]
            for mine, value in zip(
                (self.net_.shift, self.net_.scale, self.net_.fusion),
                whitening(torch.cat(pooled, 1), RANK),
            ):
                mine.copy_(value)

    def _bearable(self, x, observed):
        """How much can be hidden: from .05 in steps of .05, never above `hide`, as long as STAY of
        the samples still lie nearest to the centre of their own cluster, without the mask.

        NOTE(paper): how much may be masked is the paper's open question. It differs between data
        sets, and the clusters tell it without labels.
        """
        share = min(0.05, self._o.hide)
        while share < self._o.hide:
            shown = torch.rand(x.shape, generator=self._rng).to(x.device) >= share + 0.05
            E = self._embed(x, observed, self._M & shown)
            if (torch.cdist(E, self._centers).argmin(1) == self._C).float().mean() < STAY:
                break
            share = min(share + 0.05, self._o.hide)
        return share

    def _versions(self, S):
        """Which entries two versions of the series show, each like S (B, D, T); or all, if hide =
        0.

        An entry is hidden in the first with the chance hidden x (2 - 2 S), in the second with .4 of
        it.
        NOTE(paper): not in the paper, where a series is seen as the mask leaves it. Clusters that
        are confirmed on the very series they come from teach little; recognised in spite of hidden
        entries, they do. The less important an entry, the likelier it is hidden: so IVM makes the
        versions.
        """
        if not self._o.hide:
            return [torch.ones_like(S)]
        chances = (share * (2 - 2 * S) for share in (self._hidden, 0.4 * self._hidden))
        return [torch.rand(S.shape, generator=self._rng).to(S.device) >= c for c in chances]

    def _timestamps(self, observed, B, D, T):
        """At most TIMESTAMPS random ones of a batch's observed timestamps, as indices (n,) into (B
        T).

        NOTE(paper): the means of Eqs. (5) and (7) are over these, which bounds the memory.
        """
        at = torch.randperm(B * T, generator=self._rng)
        if observed is not None:
            at = at[observed.any(1).flatten().cpu()[at]]
        return at[:TIMESTAMPS].to(self._where)

    @torch.no_grad()
    def _update(self, x, observed, losses):
        """Lines 3 and 6 for all series: masks, clusters; then the next epsilon and share, the
        record.

        NOTE(paper): epsilon is "predefined". Unless it is given, it moves by at most .05 an epoch,
        to where the contrast, Eq. (10), of the clusters of the masked series is lowest.
        """
        epoch, losses = len(self.history_) + 1, dict(zip(TERMS, losses.tolist(), strict=True))
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise FloatingPointError(f"epoch {epoch}: {bad[-1]} is not finite; try a smaller lr")
        o, masks = self._o, {self._epsilon: self._M}
        if o.mask in ("evolving", "frozen"):
            self._S = self._importance(x, observed)
            steps = (0.0,) if o.epsilon is not None else (0.0, -0.05, 0.05)
            near = {
                min(max(round(self._epsilon + s, 9), 0.05), 0.7) if s else self._epsilon
                for s in steps
            }
            masks = {e: threshold(self._S, observed, e) for e in sorted(near)}
        found = {e: self._clusters(x, observed, M, self._C) for e, M in masks.items()}
        self._epsilon = min(found, key=lambda e: found[e][0])
        self._M, before = masks[self._epsilon], self._C
        _, self._E, self._C, self._centers = found[self._epsilon]
        change = float((before != self._C).float().mean())
        # Where the clusters are settled, more can be hidden; where they are not, it was too much.
        more, less = min(o.hide, 1.1 * self._hidden), max(min(0.05, o.hide), 0.9 * self._hidden)
        self._hidden = more if change <= SETTLED else less
        kept = self._M.sum() / (self._M.numel() if observed is None else observed.sum())
        record = {"kept": float(kept), "hidden": self._hidden, "epsilon": self._epsilon}
        self.history_.append({"epoch": epoch, **losses, **record, "label_change": change})

    def _clusters(self, x, observed, M, before=None):
        """The series under the mask M: contrast, embeddings (N, p), labels (N,), centres (g, p).

        The contrast, Eq. (10), is over at most OTHERS evenly spaced samples, one version of each.
        """
        o, E = self._o, self._embed(x, observed, M)
        if not E.isfinite().all():
            raise FloatingPointError("an embedding is not finite; try a smaller lr")
        C, centers = cluster(E, o.n_clusters, o.n_init, self._rng, before)
        some_E, some_C = (v[:: math.ceil(len(E) / OTHERS)] for v in (E, C))
        sim, pairs = cosine(some_E, some_E), cluster_pairs(some_C, some_C, itself=False)
        return float(contrast(*(pair_sum(sim, p, o.tau) for p in pairs))), E, C, centers

    @torch.no_grad()
    def _embed(self, x, observed, M):
        """F^(fused) of all series under the mask M, both (N, D, T) -> (N, p)."""
        net = self.net_
        return torch.cat(
            [
                net.embed(views(net.encoders, x[i] * M[i]), some(observed, i))
                for i in self._batches(x)
            ]
        )

    @torch.no_grad()
    def _importance(self, x, observed):
        return torch.cat([self.net_.importance(x[i], some(observed, i)) for i in self._batches(x)])

    def _first_mask(self, x, observed):
        """The random mask set before the first epoch; a static mask, or the given one, for good."""
        kind, generator = self._o.mask, torch.Generator().manual_seed(self._o.seed)
        if kind != "given":
            kind = "random" if kind in ("evolving", "frozen") else kind
            return static_mask(kind, x, observed, self._o.keep, generator)
        M = (
            torch.as_tensor(self._o.given)
            .transpose(1, 2)[:, :, : x.shape[2]]
            .to(x.device)
            .contiguous()
        )
        if M.dtype != torch.bool or M.shape != x.shape:
            raise ValueError(
                "a mask that is given must be bool, True = keep, of X's shape (N, T, D)"
            )
        return M if observed is None else M & observed

    def _converged(self):
        last = [r["label_change"] for r in self.history_[-self._o.patience :]]
        settled = len(last) == self._o.patience and max(last) <= SETTLED
        return settled and self._hidden >= self._o.hide

    def _batches(self, x):
        return torch.arange(len(x), device=x.device).split(self._o.batch_size)

    def fit_predict(self, X, y=None):
        """Labels (N,) of `fit`; y is ignored."""
        return self.fit(X).labels_

    def transform(self, X):
        """X (N, T, D), T of any length -> embeddings (N, p) float32 by the fitted network.

        The mask is by the network's own importance, or by the static rule; nothing is masked where
        the mask was random or given, so there the fitted series have another embedding than
        `embedding_`.
        """
        x, observed = self._prepare(X)
        M = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
        if self._o.mask in ("evolving", "frozen"):
            M = threshold(self._importance(x, observed), observed, self._epsilon)
        elif self._o.mask in ("uniform", "variance", "frequency"):
            M = self._first_mask(x, observed)
        return self._embed(x, observed, M).cpu().numpy()

    def predict(self, X):
        """X (N, T, D) -> the nearest cluster of each sample, (N,) int64."""
        E = torch.from_numpy(self.transform(X))
        return torch.cdist(E, self._centers.cpu()).argmin(1).numpy()

    labels_ = property(lambda self: self._outside("_C"))
    cluster_centers_ = property(lambda self: self._outside("_centers"))
    embedding_ = property(lambda self: self._outside("_E"))
    mask_ = property(lambda self: self._outside("_M"))
    importance_ = property(lambda self: self._outside("_S"))

    # ---- what a reader of the paper may skip: input, options, checkpoint, save and load

    def _outside(self, name):
        """A result as numpy's own copy; (N, D, T) as (N, T, D), common padding as 0 or False."""
        if not hasattr(self, name):
            raise AttributeError("this EMTC is not fitted; call fit(X) first")
        value = getattr(self, name)
        if name in ("_M", "_S"):
            value = nnf.pad(value * self._seen, (0, self._padding)).transpose(1, 2).contiguous()
            value = value.bool() if name == "_M" else value
        return value.cpu().numpy().copy()

    def _prepare(self, X, fitting=False):
        """X as given -> x (N, D, T) z-scored per variate, missing 0; observed, or None."""
        X = as_tensor(X)
        N, T, D = X.shape
        if not fitting and not hasattr(self, "_centers"):
            raise ValueError("this EMTC is not fitted; call fit(X) first")
        if not fitting and D != self._shape[0]:
            raise ValueError(f"X has {D} variates, the fitted data {self._shape[0]}")
        if fitting and self._o.n_clusters > N:
            raise ValueError(f"n_clusters = {self._o.n_clusters} is more than the {N} samples")
        observed = ~X.isnan().transpose(1, 2)  # (N, D, T)
        T = int(observed.any(1).any(0).nonzero().max()) + 1  # without the padding that all share
        if fitting:
            self._where = torch.device(usable(self._o.device))
            self._padding, self._shape, (self._mean, self._std) = X.shape[1] - T, (D, T), scaling(X)
            if constant := self._std.isinf().nonzero()[:, 0].tolist():
                warnings.warn(f"constant variates, which count as 0: {constant}", stacklevel=3)
        x = z_score(X, self._mean, self._std).transpose(1, 2)[:, :, :T].contiguous()
        x, observed = x.to(self._where), observed[:, :, :T].contiguous().to(self._where)
        if fitting:
            self._seen = observed
        return x, None if observed.all() else observed

    def get_params(self, deep=True):
        """The options by name, as in scikit-learn."""
        return {name: getattr(self, name) for name in OPTIONS}

    def set_params(self, **options):
        """Change options; they are read and checked at `fit`."""
        for name, value in options.items():
            if name not in OPTIONS:
                raise ValueError(f"EMTC has no option {name}; it has {', '.join(OPTIONS)}")
            setattr(self, name, value)
        return self

    def __repr__(self):
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(OPTIONS[k])]
        return f"EMTC({', '.join(given)})"

    def save(self, path):
        """Write the fitted model to `path`: to a temporary file first, then renamed."""
        state, partial = self.checkpoint(), f"{path}.{os.getpid()}.tmp"
        options = {name: vars(self._o)[name] for name in OPTIONS}
        options["mask"] = "none" if self._o.mask == "given" else self._o.mask
        try:
            with open(partial, "wb") as file:
                torch.save({"options": options, "state": state}, file)
            os.replace(partial, path)
        finally:
            if os.path.exists(partial):
                os.remove(partial)

    @classmethod
    def load(cls, path, device="auto"):
        """The model that `save` wrote; ValueError if `path` holds none, or a damaged one."""
        wrong = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError)
        try:
            file = torch.load(path, map_location="cpu", weights_only=True)
            model = cls(**{**file["options"], "device": device, "as_printed": False})
            model._o, model._shape = settings(model), tuple(file["state"]["shape"])
            model._where, model._rng = torch.device(usable(model._o.device)), torch.Generator()
            model.net_ = Network(*model._shape, model._o, model._rng).float().to(model._where)
            model._adam = torch.optim.Adam({"params": [w]} for w in model.net_.parameters())
            model._restore(file["state"])
        except (*wrong, ValueError, pickle.UnpicklingError):
            raise ValueError(f"{path} is not a model of EMTC.save, or a damaged one") from None
        return model

    def checkpoint(self):
        """The state after an epoch, as tensors and plain Python, for `fit(resume=...)`.

        The tensors are the model's own: save it, or deepcopy it, before training goes on.
        """
        if not hasattr(self, "_centers"):
            raise ValueError("this EMTC is not fitted; call fit(X) first")
        state = {name: getattr(self, "_" + name) for name in STATE}
        state["history"] = [dict(record) for record in self.history_]
        whole = {"net": self.net_.state_dict(), "adam": self._adam.state_dict()}
        return {**state, **whole, "rng": self._rng.get_state()}

    def _restore(self, state):
        if tuple(state["shape"]) != self._shape:
            raise ValueError(f"the checkpoint is of data with (D, T) = {tuple(state['shape'])}")
        self.net_.load_state_dict(state["net"])
        self._adam.load_state_dict(state["adam"])
        self._rng.set_state(state["rng"])
        self.history_ = [dict(record) for record in state["history"]]
        for name in STATE:
            value = state[name]
            keep = name not in ("mean", "std") and torch.is_tensor(value)
            setattr(self, "_" + name, value.to(self._where) if keep else value)
        fits = self._centers.shape == (self._o.n_clusters, self._E.shape[1])
        if not fits or not self._centers.isfinite().all() or len(self._C) != len(self._M):
            raise ValueError("the state of the checkpoint does not fit its options")


def some(v, i):
    """v[i], or None where there is no v: of `observed`, which is None if nothing is missing."""
    return None if v is None else v[i]


def rows(v):
    """(B, D, T) -> (B T, D), a row for each timestamp; None stays None."""
    return None if v is None else v.transpose(1, 2).flatten(0, 1)


def as_tensor(X):
    """X (N, T, D), or a list of series (T_i, D), of what numpy reads -> float64, NaN = missing."""
    X = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(X, (list, tuple)) and len({np.shape(series) for series in X}) > 1:
        series = [np.ma.filled(np.ma.asarray(one, dtype=np.float64), np.nan) for one in X]
        if any(one.ndim != 2 or one.shape[1] != series[0].shape[1] for one in series):
            raise ValueError("a list must hold series of shape (T_i, D), all of the same D")
        X = np.full((len(X), max(map(len, series)), series[0].shape[1]), np.nan)
        for row, one in zip(X, series, strict=True):
            row[: len(one)] = one
    X = X.detach().cpu().numpy() if torch.is_tensor(X) else np.ma.asarray(X)
    if X.dtype.kind not in "fiub" or X.ndim != 3 or 0 in X.shape:
        raise ValueError(f"X must hold real numbers, (N, T, D), none 0; got {X.dtype} {X.shape}")
    X = torch.from_numpy(np.ma.filled(X.astype(np.float64), np.nan))
    if X.isinf().any() or X.isnan().flatten(1).all(1).any():
        raise ValueError(
            "X holds infinite values, or a sample without any; NaN marks a missing value"
        )
    if X.shape[2] > X.shape[1] and X.shape[2] > X.shape[0]:
        warnings.warn(
            f"X has shape {tuple(X.shape)}: if that is (N, D, T), transpose it", stacklevel=3
        )
    return X


def scaling(X):
    """X (N, T, D) float64, NaN = missing -> mean, standard deviation (D,); inf where it is 0."""
    X = X.flatten(0, 1)
    mean = X.nanmean(0).nan_to_num()
    std = (X - mean).square().nanmean(0).sqrt().nan_to_num()
    return mean, torch.where(std > 1e-14 * mean.abs(), std, math.inf)


def z_score(X, mean, std):
    """(X - mean) / std, computed in float64, as float32; missing values and constant variates 0."""
    return ((X - mean) / std).nan_to_num().float()


def z_scored(X):
    """X as `fit` takes it -> (N, T, D) float32, standardised, missing 0; observed, bool."""
    X = as_tensor(X)
    return z_score(X, *scaling(X)), ~X.isnan()


def usable(device):
    """`device`, if torch can put something there; "auto" is CUDA if there, else the CPU."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.zeros(1, device=device).sum()
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError(f"device {device} is not to be had here; use auto or cpu") from None
    return device


TERMS = ("total", "contra", "intra", "inter")
STATE = ("shape", "padding", "mean", "std", "seen", "M", "S", "E", "others", "C", "centers",
         "hidden", "epsilon")  # fmt: skip
OPTIONS = {n: p.default for n, p in inspect.signature(EMTC).parameters.items()}
# The plainest. Eq. (3) has no derivative, so nothing learns what to mask.
AS_PRINTED = {"encoder": "stack", "pooling": "mean", "fusion": "average", "hide": 0.0,
              "n_starts": 1, "n_init": 1, "mask_lr": 0.0, "epsilon": 0.15}  # fmt: skip
WHOLE = (
    "n_clusters",
    "n_views",
    "batch_size",
    "width",
    "patience",
    "max_keys",
    "n_starts",
    "n_init",
)
LIMITS = {
    **dict.fromkeys(WHOLE, (1, 1e9, int)), **dict.fromkeys(("epochs", "seed"), (0, 2**62, int)),
    **dict.fromkeys(("epsilon", "keep", "hide"), (0, 1, float)), "tau": (1e-6, 1e9, float),
    **dict.fromkeys(("alpha", "beta", "lr", "mask_lr"), (0, 1e9, float)),
}  # fmt: skip
CHOICES = {"mask": MASKS, "drop": PARTS, "encoder": ("bank", "stack"), "pooling": tuple(POOLINGS),
           "fusion": ("learned", "average")}  # fmt: skip


def settings(model):
    """The options of `model`, checked, numpy's numbers as plain ones; ValueError for a bad one."""
    o = SimpleNamespace(**{**model.get_params(), **(AS_PRINTED if model.as_printed else {})})
    for name, (low, high, kind) in LIMITS.items():
        value, number = getattr(o, name), numbers.Integral if kind is int else numbers.Real
        if value is None and name == "epsilon":
            continue
        if isinstance(value, bool) or not isinstance(value, number) or not low <= value <= high:
            whole = "a whole number " if kind is int else ""
            raise ValueError(f"{name} must be {whole}from {low:g} to {high:g}; got {value!r}")
        setattr(o, name, kind(value))
    o.drop = (o.drop,) if isinstance(o.drop, str) else tuple(o.drop)
    for name, allowed in CHOICES.items():
        given = getattr(o, name)
        for value in given if name == "drop" else [given] if isinstance(given, str) else []:
            if value not in allowed:
                raise ValueError(f"{name} must be of {', '.join(allowed)}; got {value!r}")
    if {"intra", "inter", "contra"} <= set(o.drop):
        raise ValueError("drop leaves no loss to train with; keep intra, inter or contra")
    o.given, o.n_views = o.mask, 1 if "mev" in o.drop else o.n_views
    o.mask = "none" if "ivm" in o.drop else o.mask if isinstance(o.mask, str) else "given"
    return o
