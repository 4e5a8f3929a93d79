"""EMTC: evolving-masked multivariate time-series clustering (Tan et al. 2025, arXiv 2511.17008).

Read it beside the paper, from top to bottom: IVM (Eqs. 1-3), MEV (4), CRL (5-7), CMC (8-12), the
total loss (13), the networks that hold the weights, and Algorithm 1 as one loop, `EMTC._train`. The
home of an equation is the function whose docstring ends with it: `grep -n "Eq. ([0-9]" emtc.py`.
NOTE(paper) stands where the paper is silent, or where this code is not what the paper says.

N samples, each a series of T timestamps and D variates; an entry is one variate at one timestamp. V
views, g clusters; B samples of a batch; h channels, 4 in IVM and `width` in MEV; n rows, of
timestamps or of samples. Z and S are vectors of h numbers an entry (Eqs. 1, 2); from `importance`
on, S is a number. F is the views, (V, B, h, T), and pooled over time q numbers of each; E, (n, p),
what Eq. 8 makes of them, which the paper calls F from there on; C the clusters of E. X is (N, T, D)
float32, as in the paper; inside, variates come before time, (B, D, T), as torch's convolutions want
it. A mask M is bool, True = keep (M = 1 in Eq. 3). `observed` is bool, False = missing (NaN in X):
such an entry is 0 as input, is kept by no mask and counts in no reconstruction; a timestamp without
any observed entry counts in no loss and pooling.
"""

import copy
import inspect
import math
import numbers
import os
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn
import torch.nn as nn
import torch.nn.functional as nnf

from kmeans import kmeans
from metrics import match

KERNELS = (5, 9, 3)  # kernel size of view 1, 2, 3, and again
RANK = 16  # p, where the fusion is learned
TIMESTAMPS = 2048  # so many timestamps of a batch, drawn at random, enter the reconstruction losses
SAMPLES = 4096  # so many samples at most stand against an anchor in the contrast, or calibrate
SETTLED = 0.01  # share of the labels that may still change in an epoch with settled clusters
UNCLEAR = 0.25  # clusters are unclear if Eq. 10 exceeds this share of log g, its value by chance
HELD = 8  # clusters that were found under a mask stay for this many epochs
STAY = 0.8  # share of the samples that must be recognised in spite of what is hidden

# ---- IVM: importance-aware variate-wise masking


def single_variate_embedding(x, W1, b1, W2, b2, observed):
    """Z^(d) = f^(d)(x^(d)): two convolutions over time, each variate with kernels of its own; ReLU.

    x, observed (B, D, T); W1 (D h, 1, 3), dilation 1; W2 (D h, h, 3), dilation 2; b1, b2 (D h,)
    -> Z (B, D, T, h). NOTE(paper): "dilated convolution" is all that is said of f^(d). It is given
    X there; here only variate d, since Z^(d) is to be the embedding of a single one.  Eq. (1).
    """
    (B, D, T), h = x.shape, len(b1) // x.shape[1]
    Z = nnf.conv1d(x, W1, b1, padding=1, groups=D).relu().view(B, D, h, T)
    Z = (Z * observed[:, :, None]).flatten(1, 2)
    Z = nnf.conv1d(Z, W2, b2, padding=2, dilation=2, groups=D).relu()
    return Z.view(B, D, h, T).transpose(2, 3).contiguous()


def attention(Q, K, Z, observed):
    """S^(d) = softmax(Q K^T / sqrt(h)) Z: what a timestamp gathers from the others of its variate.

    Q (B, D, T, h); K, Z (B, D, n, h) and observed (B, D, n) at the n timestamps attended to
    -> S (B, D, T, h). Torch's fused kernels do not store the (T, n) weights.
    NOTE(paper): how Q and K are made is left open; see `Importance`.  Eq. (2).
    """
    observed = observed | ~observed.any(2, keepdim=True)  # a softmax over nothing would be NaN
    return nnf.scaled_dot_product_attention(Q, K, Z, observed[:, :, None])


def importance(S, w, observed):
    """From a vector to a number in (0, 1): S (B, D, T, h), w (h,) -> (B, D, T); .5 where missing.

    NOTE(paper): Eq. 3 compares S(t) with a number, but Eq. 2 gives a vector. A learned linear
    map makes it a number. It is standardised over all timestamps and variates of the sample, since
    an entry is redundant only in comparison with the others, and the sigmoid puts it into (0, 1).
    """
    s = S @ w  # (B, D, T)
    entries = observed.sum((1, 2), keepdim=True)
    s = (s - (s * observed).sum((1, 2), keepdim=True) / entries) * observed  # of mean 0
    std = (s.square().sum((1, 2), keepdim=True) / entries + 1e-12).sqrt()
    return torch.sigmoid(s / std)


def threshold(S, observed, epsilon):
    """M(t) = 1 where S(t) >= epsilon, else 0; S (B, D, T), M bool, True = keep.

    NOTE(paper): a sample is never masked away whole: where nothing passes, its most important entry
    stays. So epsilon = 0 keeps all that is observed, and 1 one entry of each sample.  Eq. (3).
    """
    M = (S >= epsilon) & observed
    best = S.masked_fill(~observed, -1).flatten(1).argmax(1, keepdim=True)
    best = torch.zeros_like(M).flatten(1).scatter_(1, best, True).view_as(M)
    return M | (best & ~M.flatten(1).any(1)[:, None, None])


def straight_through(M, S):
    """Forward exactly the 0/1 mask M, backward the importance S; both (B, D, T).

    M is the last epoch's mask (in the first, a random one), S the importance of now.
    NOTE(paper): Eq. 3 has no derivative, so as printed nothing would teach the importance
    network; in the authors' published code nothing does. The straight-through estimator (Bengio et
    al. 2013, arXiv 1308.3432) makes the mask a learned one.
    """
    return M.to(S.dtype) + (S - S.detach())


# ---- MEV: multi-endogenous views


def views(encoders, x):
    """F^(v) = f^(v)(x) for V encoders: masked input x (B, D, T) -> (V, B, h, T).  Eq. (4)."""
    return torch.stack([f(x) for f in encoders])


# ---- CRL: consistency and reconstruction learning


def intra_loss(X, X_v, observed):
    """Sum over the views of ||X - X^(v)||^2.

    X, observed (n, D) at n timestamps, of the series before the mask; X_v (V, n, D) -> ().
    NOTE(paper): a mean in place of the sum, here over the observed entries, in Eq. 7 over all
    numbers, in Eq. 10 over the anchors; so alpha and beta mean the same on each data set.  Eq. (5).
    """
    return ((X - X_v).square() * observed).sum() / observed.sum().clamp_min(1)


def inter_loss(F, H, pairs):
    """Sum over the ordered pairs of views (i, j) of ||F^(j) - H_ij(F^(i))||^2.

    F (V, n, h) at n timestamps; H maps (G, n, h) to (G, n, h), each of the G = V (V - 1) pairs by
    its own network.
    NOTE(paper): H, as R in Eq. 5, sees each timestamp alone; both sides get gradient.  Eq. (6).
    """
    i, j = map(list, zip(*pairs, strict=True))
    return sum(pair_loss(F_j, F_ij) for F_j, F_ij in zip(F[j], H(F[i]), strict=True))


def pair_loss(F_j, F_ij):
    """||F^(j) - F^(i->j)||^2 as a mean: view j and what H made of view i, (n, h).  Eq. (7)."""
    return (F_j - F_ij).square().mean()


# ---- CMC: clustering-guided contrast


def pool_shares(F, timestamps):
    """F (V, B, h, T) -> (V, B, 2 h), over the timestamps at which anything was observed, (B, T).

    NOTE(paper): the pooling before Eq. 8 is left open. Here it is two numbers a channel: the mean
    of tanh(3 F), softly the share of the time with F > 0 less that with F < 0, and the maximum: for
    how long the channel's pattern is there, and how strongly.
    """
    peak = F.masked_fill(~timestamps[:, None], -math.inf).amax(3)
    return torch.cat([pool_mean(torch.tanh(3 * F), timestamps), peak], 2)


def pool_mean(F, timestamps):
    """F (V, B, h, T) -> its mean over the same timestamps, (V, B, h); the plainest pooling."""
    return (F * timestamps[:, None]).sum(3) / timestamps.sum(1)[:, None]


def fuse(pooled, shift, scale, W):
    """F^(fused): the pooled views (V, B, q) side by side, standardised, times W; rows of length 1.

    shift, scale (V q,), W (V q, p) -> (B, p).
    NOTE(paper): the paper's fusion is the mean of the views (fusion="average", in `Network.embed`),
    "which can be extended to weighted combinations". Ours is a combination that is learned, and
    starts as a `whitening`.  Eq. (8).
    """
    side_by_side = pooled.transpose(0, 1).flatten(1)  # (B, V q)
    return nnf.normalize((side_by_side - shift) / scale @ W, dim=1)


def whitening(pooled, rank, power=0.75):
    """Where the fusion starts: pooled views (V, N, q) -> shift, scale (V q,), W (V q, rank).

    Pooled channels repeat each other, and in k-means a pattern would count as often as there are
    channels that show it. So they are standardised, reduced to `rank` principal components, and
    these are brought nearer to one scale; with power 1 they would have the same.
    """
    pooled = pooled.transpose(0, 1).flatten(1)  # (N, V q)
    shift, scale = pooled.mean(0), pooled.std(0, correction=0)
    scale = torch.where(scale > 1e-5, scale, 1)
    _, s, components = torch.linalg.svd((pooled - shift) / scale, full_matrices=False)
    p = max(1, min(rank, len(s) - 1))  # N rows less their mean span N - 1 dimensions at most
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
    # table[c, b]: how many samples are in the new cluster c, and were in cluster b before.
    table = torch.bincount(found.labels * g + before, minlength=g * g).view(g, g)
    new = torch.as_tensor(match(table.cpu().numpy())[1], device=E.device)  # c shall be new[c]
    return new[found.labels], found.centers[new.argsort()]


def contrast(L_plus, L_minus):
    """-log(L+ / (L+ + L-)), the mean over the anchors; given are log L+ and log L-, (B,) -> ().

    In logarithms no tau overflows. An anchor that is alone in its cluster has no positive pair and
    does not count.  Eq. (10).
    """
    paired = L_plus > -math.inf
    # -log(a / (a + b)) = log(a + b) - log(a)
    loss = torch.logaddexp(L_plus, L_minus) - L_plus
    return torch.where(paired, loss, 0).sum() / paired.sum().clamp_min(1)


def pair_sum(sim, pairs, tau):
    """log of the sum of exp(sim / tau) over an anchor's positive pairs (L+), or negative ones (L-).

    sim (B, n) cosine similarities, pairs (B, n) bool, True = counts -> (B,).  Eq. (11).
    """
    return (sim / tau).masked_fill(~pairs, -math.inf).logsumexp(1)


def cosine(E, anchors):
    """sim(i, j) = E_i . E_j / (|E_i| |E_j|): anchors (B, p), E (n, p) -> (B, n).  Eq. (12)."""
    return nnf.normalize(anchors, dim=1) @ nnf.normalize(E, dim=1).T


def cluster_pairs(C_i, C_j, itself):
    """Positive pairs, of one cluster, and negative ones: C_i (B,), C_j (n,) -> two bool (B, n).

    The first B of C_j are C_i again, the anchors. An anchor is a pair with itself only if `itself`.
    NOTE(paper): then the two sides are two versions of each series, which the paper does not have.
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
    """Eqs. 1, 2 and the number that Eq. 3 compares: x (B, D, T) -> (B, D, T) in (0, 1)."""

    def __init__(self, D, h, max_keys, generator, T=0):
        super().__init__()
        self.max_keys, self.T = max_keys, T
        # NOTE(paper): one matrix Q and one K for all variates, as the entries of a sample are
        # compared with each other. Near unit size, for with smaller weights the softmax is so even
        # that S hardly varies over time. Q = K and w >= 0, so that at first what is loud attends to
        # what is loud, and counts as important: with random signs, half of the networks would begin
        # the other way round.
        shapes = ((D * h, 1, 3), (D * h, h, 3), (h, h))
        W1, W2, QK = (torch.randn(shape, generator=generator) for shape in shapes)
        self.W1, self.b1 = nn.Parameter(W1 * (2 / 3) ** 0.5), nn.Parameter(torch.zeros(D * h))
        self.W2, self.b2 = nn.Parameter(W2 * (2 / 3 / h) ** 0.5), nn.Parameter(torch.zeros(D * h))
        start = torch.linalg.qr(QK)[0]
        self.Q, self.K = nn.Parameter(start), nn.Parameter(start.clone())
        self.w = nn.Parameter(weights((h,), h, generator).detach().abs())

    def forward(self, x, observed):
        Z = single_variate_embedding(x, self.W1, self.b1, self.W2, self.b2, observed)
        # Each timestamp attends to every step-th one, of shorter series than in the fit as there.
        step = math.ceil(max(x.shape[2], self.T) / self.max_keys)
        K = Z[:, :, ::step] @ self.K
        S = attention(Z @ self.Q, K, Z[:, :, ::step], observed[:, :, ::step])
        return importance(S, self.w, observed)


class Encoder(nn.Module):
    """f^(v) of Eq. 4: convolutions side by side, dilations 1, 2, 4, ... up to the series' length.

    NOTE(paper): "dilated convolution" is all that the paper says, and nothing of how views differ.
    Here by kernel size, k. Every second kernel of a dilation sums to zero: about half of the
    channels see a pattern's shape wherever its level lies, the others see the level.
    """

    def __init__(self, D, T, h, k, generator):
        super().__init__()
        # n dilations: the widest kernel spans (k - 1) 2^(n-1) + 1 <= T timestamps.
        n = min(h, 1 + int(math.log2(max(1, (T - 1) / (k - 1)))))
        sizes = [(h + e) // n for e in range(n)]  # sum to h, as even as can be
        self.W = nn.ParameterList(torch.randn((c, D, k), generator=generator) for c in sizes)
        self.b = nn.ParameterList(torch.zeros(c) for c in sizes)
        self.mix, self.mix_b = nn.Parameter(torch.zeros(h, h, 1)), nn.Parameter(torch.zeros(h))

    def forward(self, x):
        """x (B, D, T) -> F^(v) (B, h, T). What mixes the channels starts at 0: then F is linear."""
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
    """The plainest reading of Eq. 4: three convolutions, dilations 1, 2, 4, one after another."""

    def __init__(self, D, T, h, k, generator):
        super().__init__()
        self.W = nn.ParameterList(weights((h, c, k), c * k, generator) for c in (D, h, h))
        self.b = nn.ParameterList(weights((h,), c * k, generator) for c in (D, h, h))

    def forward(self, x):
        """x (B, D, T) -> F^(v) (B, h, T), with ReLU between."""
        for e, (W, b) in enumerate(zip(self.W, self.b, strict=True)):
            padding = 2**e * (W.shape[2] // 2)
            x = nnf.conv1d(x.relu() if e else x, W, b, padding=padding, dilation=2**e)
        return x

    def scale(self, x):
        """Torch's own start stays as it is."""


class MLPs(nn.Module):
    """G multi-layer perceptrons side by side: (G, n, sizes[0]) -> (G, n, sizes[-1])."""

    def __init__(self, G, sizes, generator):
        super().__init__()
        layers = list(zip(sizes, sizes[1:]))
        # Uniform within sqrt(3 / a), for a inputs: of variance 1 / a.
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
        self.importance = Importance(D, 4, o.max_keys, generator, T)
        sizes = [KERNELS[v % len(KERNELS)] for v in range(V)]
        self.encoders = nn.ModuleList(kind(D, T, h, k, generator) for k in sizes)
        self.pairs = [(i, j) for i in range(V) for j in range(V) if i != j]
        self.R = MLPs(V, [h] + [32] * 5 + [D], generator)  # six layers, as the paper has it
        self.H = MLPs(len(self.pairs), [h, 32, 32, 32, h], generator)  # four layers
        self.pool, self.learned_fusion = POOLINGS[o.pooling], o.fusion == "learned"
        pooled = V * h * (2 if self.pool is pool_shares else 1)  # numbers of all views
        self.fusion = nn.Parameter(torch.zeros(pooled, RANK))
        self.register_buffer("shift", torch.zeros(pooled))
        self.register_buffer("scale", torch.ones(pooled))

    @torch.no_grad()
    def calibrate(self, x, observed):
        """Fit the scales of the kernels and the start of the fusion to the series x (N, D, T)."""
        for f in self.encoders:
            f.scale(x)
        if self.learned_fusion:
            pooled = [self.pool(views(self.encoders, x[i]), observed[i].any(1))
                      for i in torch.arange(len(x), device=x.device).split(64)]  # fmt: skip
            first = whitening(torch.cat(pooled, 1), RANK)
            for mine, value in zip((self.shift, self.scale, self.fusion), first, strict=True):
                mine.copy_(value)

    def embed(self, F, observed):
        """Views F (V, B, h, T) -> F^(fused) (B, p); fusion="average" is the mean over the views."""
        pooled = self.pool(F, observed.any(1))
        if not self.learned_fusion:
            return pooled.mean(0)
        return fuse(pooled, self.shift, self.scale, self.fusion)


POOLINGS = {"shares": pool_shares, "mean": pool_mean}

# ---- Algorithm 1: the estimator


class EMTC:
    """Evolving-masked clustering of multivariate time series; Algorithm 1 of arXiv 2511.17008.

    n_clusters: g. n_views: V. tau > 0: Eq. 11. alpha, beta >= 0: Eq. 13. width: h. lr, batch_size:
    of Adam (the fusion has 3 lr); a batch holds at most a quarter of the samples, rounded up.
    epochs: the most; 0 = untrained. seed: governs weights, batches, masks and k-means; no other
    random numbers are touched.
    epsilon: threshold of Eq. 3 in [0, 1]; 0 keeps all, 1 one entry of each sample. The default
    masks next to nothing at the end; on the sets of the studies .3 masks a tenth, .4 half.
    mask: "evolving"; "frozen", the importance network as drawn; "none"; or one that is given and
    stays, a bool array (N, T, D), True = keep. keep: share that is kept by the random mask with
    which the first two begin.
    hide: the largest mean chance of an entry to be hidden in training; 0 = one version, all shown.
    drop: parts to leave out, any of "ivm" (no mask), "mev" (V = 1), "intra", "inter", "contra"
    (without which only hide = 0 teaches the mask).
    n_starts: networks drawn; that with the lowest Eq. 10 after `trial` epochs is trained, with the
    importance network that its trial has learned, which helps to find the first clusters where
    these are unclear. n_init: starts of k-means. patience: converged = at most 1 % of the labels
    changed in each of so many last epochs, and `hide` is reached. max_keys: the most timestamps
    attended to in Eq. 2, evenly spaced; up to that length exact.
    encoder "bank" (Encoder) or "stack" (Stack), pooling "shares" (pool_shares) or "mean"
    (pool_mean), fusion "learned" (fuse) or "average", mask_lr, by which lr is multiplied for the
    importance network: where the paper is silent, ours and the plainest. as_printed=True sets the
    seven options of AS_PRINTED to the plainest; all others stay as given.
    device: "auto" (CUDA if there), "cpu", "cuda", ...

    X is (N, T, D), or a list of N series (T_i, D); NaN = missing. ValueError where it cannot be
    used. No method looks at labels; y is there for scikit-learn's sake. After `fit`, copies in
    numpy: `labels_` (N,) int64, `cluster_centers_` (g, p), `embedding_` (N, p), `importance_` (N,
    T, D) in (0, 1), 0 where missing, .5 if the mask is none or given or epochs = 0, and `mask_` (N,
    T, D) bool, True = keep.
    `history_` is a dict per epoch: epoch; its mean losses total, contra, intra, inter; label_change
    (share of the samples); contrast, Eq. 10 over the series as `mask_` leaves them; and, as the
    next epoch would train with them, kept (share of the observed entries that mask_ keeps) and
    hidden (mean chance).
    Under torch.distributed each process does its part of every batch; see `own`.
    """

    def __init__(self, n_clusters=8, *, n_views=2, epsilon=0.15, tau=0.1, alpha=0.1, beta=0.1,
                 lr=1e-3, epochs=40, batch_size=64, width=64, mask="evolving", keep=0.8, hide=0.5,
                 drop=(), n_starts=4, trial=15, n_init=50, patience=10, max_keys=256,
                 mask_lr=30.0, encoder="bank", pooling="shares", fusion="learned",
                 as_printed=False, seed=0, device="auto"):  # fmt: skip
        given = locals()
        vars(self).update({name: given[name] for name in OPTIONS})

    @torch.enable_grad()
    def fit(self, X, y=None, *, on_epoch=None, on_trial=None, resume=None):
        """Algorithm 1, from the best of `n_starts` networks. `on_epoch(model, record)` is called
        after every epoch, when `labels_` etc. are that epoch's, and `on_trial(model, record)` after
        every epoch of a trial, whose number, from 1, the record has as well; `resume` is a
        `checkpoint()` to go on from, of either, on a CPU to the same bits as a run that never
        stopped. FloatingPointError if a loss or an embedding is not finite.

        NOTE(paper): what a random network makes of the series differs much from draw to draw, and
        contrast confirms the clusters that it is given. So, as k-means is started more than once,
        each network is tried for some epochs, and the one that ends with the lowest Eq. 10, which
        no label enters, is trained anew; only its importance network keeps what it has learned.
        """
        o = self._o = settings(self)
        x, observed = self._prepare(X, fitting=True)  # (N, D, T) both
        self._trials, self._taught = [], None  # Eq. 10 of each trial, importance of the best one
        if resume is not None:
            theirs = (tuple(resume["shape"]), len(resume["C"]), resume["n_starts"])
            if theirs != (self._shape, len(x), o.n_starts) or not resume["mean"].equal(self._mean):
                told = f"(D, T), N, n_starts = {theirs}"
                raise ValueError(f"the checkpoint is of other data or options: {told}")
            self._trials, self._taught = resume["trials"], resume["taught"]
        while o.n_starts > 1 and len(self._trials) < o.n_starts:
            number, epochs = len(self._trials), min(o.trial, o.epochs)
            told = on_trial and (lambda m, r, n=number + 1: on_trial(m, {"trial": n, **r}))
            eq10 = self._train(x, observed, number, epochs, told, resume)
            if eq10 < min(self._trials, default=math.inf):
                self._taught = copy.deepcopy(self.net_.importance.state_dict())
            self._trials, resume = [*self._trials, eq10], None
        number = self._trials.index(min(self._trials)) if self._trials else 0
        self._train(x, observed, number, o.epochs, on_epoch, resume, self._taught)
        return self

    def _train(self, x, observed, number, epochs, on_epoch=None, resume=None, taught=None):
        """Algorithm 1 from the network of that number, for at most so many epochs -> Eq. 10.
        `taught`: weights of the importance network to begin with.

        As in the paper, the mask set is that of the epoch before, and k-means runs once an epoch.
        NOTE(paper): line 6 comes last here, so that clusters are those of the epoch before, too.
        A batch holds at most a quarter of the samples: small data have several steps an epoch.
        """
        o, N, B = self._o, len(x), min(self._o.batch_size, math.ceil(len(x) / 4))
        self._begin(x, observed, number, taught)  # line 1
        if resume is not None:
            self._restore(resume)
        net = self.net_
        while len(self.history_) < epochs and not self._converged():  # lines 2 and 9
            losses = torch.zeros(4, device=x.device)
            # The same order twice: no N of its samples in a row, from any batch on, hold one twice.
            order = torch.randperm(N, generator=self._rng).repeat(2).to(x.device)
            for first in range(0, N, B):
                batch = order[first : min(first + B, N)]
                # NOTE(paper): Eq. 10 is over all N. Here over at most SAMPLES, the batch first;
                # those outside it stand with their last embeddings, without gradient.
                against = order[first : first + max(len(batch), min(N, SAMPLES))]
                i = own(batch)  # the rows of this process; if it is the only one, all
                x_i, observed_i = x[i], observed[i]

                # Line 3, IVM: forward the last epoch's mask set, backward the importance of now.
                S, M = self._S[i], self._M[i].to(x.dtype)  # (B, D, T)
                if o.mask == "evolving":
                    S = net.importance(x_i, observed_i)
                    M = straight_through(M, S)

                # Line 4, MEV: the views (V, B, h, T) of each version of the series; x_i * m is the
                # paper's X~. NOTE(paper): of two versions the first teaches the mask, by contrast,
                # and the second, M.detach(), is reconstructed, since reconstruction asks for all
                # that is loud, whether it tells of a cluster or not. With hide = 0 there is one
                # version, with which zip ends, and it does both.
                shown = self._versions(S.detach(), len(batch))
                F_versions = [views(net.encoders, x_i * m * show)
                              for m, show in zip((M, M.detach()), shown)]  # fmt: skip

                # Line 5, CRL: reconstruction from the version in which less is hidden.
                F_n, X_n, observed_n = self._timestamps(F_versions[-1], x[batch], observed[batch])
                intra = inter = contra = x.new_zeros(())
                if "intra" not in o.drop:
                    intra = intra_loss(X_n, net.R(F_n), observed_n)
                if "inter" not in o.drop and net.pairs:
                    inter = inter_loss(F_n, net.H, net.pairs)

                # Line 7, CMC: anchors of one version, a, against all samples in the other, b.
                E = [joined(net.embed(F, observed_i), len(batch)) for F in F_versions]
                if "contra" not in o.drop:
                    two = len(E) == 2
                    positive, negative = cluster_pairs(self._C[batch], self._C[against], itself=two)
                    for a, b in ((0, 1), (1, 0)) if two else ((0, 0),):
                        outside = self._others[b, against[len(batch) :]]
                        sim = cosine(torch.cat([E[b], outside]), E[a])  # (B, n)
                        L_plus, L_minus = (pair_sum(sim, p, o.tau) for p in (positive, negative))
                        contra = contra + contrast(L_plus, L_minus) / len(E)

                # Line 8: the total loss and a step of Adam.
                total = total_loss(contra, intra, inter, o.alpha, o.beta)
                self._adam.zero_grad()
                total.backward()
                average_gradients(net)
                self._adam.step()
                self._others[:, batch] = torch.stack(E).detach()
                losses += torch.stack([total, contra, intra, inter]).detach() * (len(batch) / N)

            # Line 6, and lines 3 and 4 again, for all series: what the next epoch starts with.
            self._update(x, observed, losses)
            if on_epoch is not None:
                on_epoch(self, self.history_[-1])
        return self._contrast

    def _begin(self, x, observed, number, taught):
        """Line 1: the network, first clusters, first mask set.

        The first mask set is the paper's: random, keeping the share `keep`. NOTE(paper): the first
        clusters are those of the series as observed. If they are unclear, which Eq. 10 tells, and a
        trial has taught an importance network, the series are clustered again, with only the
        entries whose importance is above their sample's average. If those clusters are clearer,
        they stay for HELD epochs without k-means, in which the network learns to see them in the
        whole series. (UNCLEAR is meant for a tau near .1: with a larger one none look clear.)
        """
        o, self.history_, self._held = self._o, [], 0
        self._draw(number)
        some = slice(None, None, math.ceil(len(x) / SAMPLES))
        calibrate = lambda M: self.net_.calibrate(x[some] * M[some], observed[some])
        calibrate(observed)
        self._S = torch.full_like(x, 0.5) * observed
        contrast, *_ = found = self._clusters(x, observed, observed)
        self._unclear = contrast > UNCLEAR * math.log(o.n_clusters)
        if taught is not None and o.mask != "none" and o.epochs:
            self.net_.importance.load_state_dict(taught)
            if self._unclear:
                M = threshold(self._importance(x, observed), observed, 0.5)
                calibrate(M)  # to the series under this mask, and afterwards back
                masked_contrast, _, C, _ = self._clusters(x, observed, M)
                calibrate(observed)
                if masked_contrast < contrast and len(C.unique()) == o.n_clusters:
                    self._held = HELD  # so the labels are C again, with new embeddings and centres
                    found = self._clusters(x, observed, observed, C)
        self._contrast, self._E, self._C, self._centers = found
        self._others = self._E.repeat(2 if o.hide else 1, 1, 1)  # last embeddings of each version
        self._hidden = self._bearable(x, observed) if o.hide and o.epochs else 0.0
        self._M = observed if o.given is None else observed & self._given(o.given, x)
        if o.mask != "none":
            self._M = observed & (self._random(x.shape) < o.keep)

    def _draw(self, number):
        """The network of that number and its optimiser; all random numbers of a run follow it.

        NOTE(paper): Adam; its learning rates are left open, as are V, epsilon, tau, alpha and beta.
        """
        o, seed = self._o, np.random.SeedSequence((self._o.seed, number)).generate_state(1)
        self._rng = torch.Generator().manual_seed(int(seed[0]))
        net = self.net_ = Network(*self._shape, o, self._rng).float().to(self._where)
        rest = [*net.encoders.parameters(), *net.R.parameters(), *net.H.parameters()]
        rates = (rest, 1), ([net.fusion], 3), (net.importance.parameters(), o.mask_lr)
        groups = [{"params": params, "lr": rate * o.lr} for params, rate in rates]
        self._adam = torch.optim.Adam(groups, fused=True)

    def _bearable(self, x, observed):
        """How many entries can be hidden at random: .05 and more, in steps of .05 up to `hide`, as
        long as the share STAY of the samples is still nearest to the centre of its own cluster.

        NOTE(paper): the paper hides only what its mask hides. How much a data set bears differs
        from one to the next, and its clusters tell it without labels.
        """
        share = min(0.05, self._o.hide)
        while share < self._o.hide:
            E = self._embed(x, observed, observed & (self._random(x.shape) >= share + 0.05))
            if (torch.cdist(E, self._centers).argmin(1) == self._C).float().mean() < STAY:
                break
            share = min(share + 0.05, self._o.hide)
        return share

    def _versions(self, S, B):
        """Which entries two versions of the series show, each like S (B, D, T); all if hide = 0.

        An entry is hidden in the first with the chance `_hidden` (2 - 2 S), which is `_hidden` on
        average, in the second with .4 of it; where the first clusters were clear, each entry by the
        same chance.
        NOTE(paper): not in the paper, where a series is seen as the mask leaves it. Clusters that
        are confirmed on the very series they come from teach little; recognised in spite of hidden
        entries, they do. Where they are unclear, IVM makes the versions: the less important an
        entry, the likelier it is hidden.
        """
        if not self._o.hide:
            return [torch.ones_like(S)]
        weight = 2 - 2 * S if self._unclear else torch.ones_like(S)
        chances = (share * weight for share in (self._hidden, 0.4 * self._hidden))
        return [own(self._random((B, *S.shape[1:]))) >= chance for chance in chances]

    def _timestamps(self, F, x, observed):
        """About TIMESTAMPS observed timestamps of a batch, drawn at random, as many of each series.

        F (V, B, h, T), of the process's own rows; x, observed (B, D, T) of all the batch
        -> F (V, n, h), x and observed (n, D). A series with fewer gives some of them repeatedly.
        NOTE(paper): the means of Eqs. 5 and 7 are over these, which bounds the memory.
        """
        B, D, T = x.shape
        there = observed.any(1)  # (B, T)
        turn = torch.arange(min(T, math.ceil(TIMESTAMPS / B)), device=x.device)
        at = (self._random((B, T)) - 2 * there).argsort(1)  # in random order, the missing ones last
        at = at.gather(1, turn % there.sum(1, keepdim=True))  # (B, n / B), the first of each series
        pick = lambda v, at: v.take_along_dim(at[:, None], -1).transpose(-1, -2)
        F = torch.stack([joined(pick(F_v, own(at)), B) for F_v in F])  # (V, B, n / B, h)
        return F.flatten(1, 2), pick(x, at).flatten(0, 1), pick(observed, at).flatten(0, 1)

    def _update(self, x, observed, losses):
        """Lines 3 and 6 for all series: mask set, clusters; the next share to hide, the record."""
        epoch, losses = len(self.history_) + 1, dict(zip(TERMS, losses.tolist(), strict=True))
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise FloatingPointError(f"epoch {epoch}: {bad[-1]} is not finite; try a smaller lr")
        o, before = self._o, self._C
        if o.mask != "none":
            self._S = self._importance(x, observed)
            self._M = threshold(self._S, observed, o.epsilon)
        found = self._clusters(x, observed, self._M, before)
        self._contrast, self._E, self._C, self._centers = found
        change = float((before != self._C).float().mean())
        # Where the clusters are settled, more can be hidden; where they are not, it was too much.
        more, less = min(o.hide, 1.1 * self._hidden), max(min(0.05, o.hide), 0.9 * self._hidden)
        self._hidden = more if change <= SETTLED else less
        record = {"epoch": epoch, **losses, "label_change": change, "contrast": self._contrast}
        record |= {"kept": float(self._M.sum() / observed.sum()), "hidden": self._hidden}
        self.history_.append(record)

    def _clusters(self, x, observed, M, before=None):
        """The series under the mask M: contrast, embeddings (N, p), labels (N,), centres (g, p).

        For the first `_held` epochs the labels `before` stay, their means are the centres. The
        contrast, Eq. 10, is over at most SAMPLES evenly spaced samples, one version of each.
        """
        o, E = self._o, self._embed(x, observed, M)
        if not E.isfinite().all():
            raise FloatingPointError("an embedding is not finite; try a smaller lr")
        if len(self.history_) < self._held:
            member = nnf.one_hot(before, o.n_clusters).T.to(E.dtype)  # (g, N)
            C, centers = before, member @ E / member.sum(1, keepdim=True)
        else:
            C, centers = agreed(*cluster(E, o.n_clusters, o.n_init, self._rng, before))
        some_E, some_C = (v[:: math.ceil(len(E) / SAMPLES)] for v in (E, C))
        sim, pairs = cosine(some_E, some_E), cluster_pairs(some_C, some_C, itself=False)
        return float(contrast(*(pair_sum(sim, p, o.tau) for p in pairs))), E, C, centers

    def _embed(self, x, observed, M):
        """F^(fused) of all series under the mask M, both (N, D, T) -> (N, p)."""
        net = self.net_
        masked = lambda i: net.embed(views(net.encoders, x[i] * M[i]), observed[i])
        return self._for_all(masked, len(x))

    def _importance(self, x, observed):
        return self._for_all(lambda i: self.net_.importance(x[i], observed[i]), len(x)) * observed

    @torch.no_grad()
    def _for_all(self, f, N):
        """f of the indices of all series, batch by batch, one row each -> (N, ...)."""
        batches = own(torch.arange(N, device=self._where)).split(self._o.batch_size)
        return joined(torch.cat([f(i) for i in batches]), N)

    def _converged(self):
        """NOTE(paper): "until convergence": labels are settled, and as much is hidden as may be."""
        last = [r["label_change"] for r in self.history_[-self._o.patience :]]
        settled = len(last) == self._o.patience and max(last) <= SETTLED
        return settled and self._hidden >= self._o.hide

    def fit_predict(self, X, y=None):
        """Labels (N,) of `fit`; y is ignored."""
        return self.fit(X).labels_

    def transform(self, X):
        """X (N, T, D), T of any length -> embeddings (N, p) float32 by the fitted network.

        The mask is by the network's own importance; there is none where the mask was given. There,
        and after 0 epochs, the fitted series have another embedding than `embedding_`.
        """
        x, observed = self._prepare(X)
        M = observed
        if self._o.mask != "none":
            M = threshold(self._importance(x, observed), observed, self._o.epsilon)
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

    def _random(self, shape):
        """Uniform in [0, 1), drawn on the CPU, so that each device sees the same numbers."""
        return torch.rand(shape, generator=self._rng).to(self._where)

    def _given(self, M, x):
        """The mask that the user gave, bool (N, T, D), as (N, D, T) without common padding."""
        M, (N, D, T) = torch.as_tensor(M), x.shape
        if M.dtype != torch.bool or M.shape != (N, T + self._padding, D):
            raise ValueError("a given mask must be bool, True = keep, of X's shape (N, T, D)")
        return M.transpose(1, 2)[:, :, :T].to(x.device)

    def _outside(self, name):
        """A result as numpy's own copy; (N, D, T) as (N, T, D), common padding as 0 or False."""
        self._check_fitted()
        value = getattr(self, name)
        if name in ("_M", "_S"):
            value = nnf.pad(value, (0, self._padding)).transpose(1, 2).contiguous()
        return value.cpu().numpy().copy()

    def _check_fitted(self):
        if not hasattr(self, "_centers"):
            raise NotFittedError("this EMTC is not fitted; call fit(X) first")

    def _prepare(self, X, fitting=False):
        """X as given -> x (N, D, T) z-scored per variate, missing 0; observed (N, D, T) bool."""
        X = as_tensor(X)
        N, _, D = X.shape
        if not fitting:
            self._check_fitted()
            if D != self._shape[0]:
                raise ValueError(f"X has {D} variates, the fitted data {self._shape[0]}")
        elif self._o.n_clusters > N:
            raise ValueError(f"n_clusters = {self._o.n_clusters} is more than the {N} samples")
        observed = ~X.isnan().transpose(1, 2)  # (N, D, T)
        T = int(observed.any(1).any(0).nonzero().max()) + 1  # without the padding that all share
        observed = observed[:, :, :T].contiguous()
        if fitting:
            self._where = usable(self._o.device)
            self._padding, self._shape, (self._mean, self._std) = X.shape[1] - T, (D, T), scaling(X)
            if constant := self._std.isinf().nonzero()[:, 0].tolist():
                warnings.warn(f"constant variates, which count as 0: {constant}", stacklevel=3)
        x = z_score(X, self._mean, self._std).transpose(1, 2)[:, :, :T].contiguous()
        return x.to(self._where), observed.to(self._where)

    def get_params(self, deep=True):
        """The options by name, as in scikit-learn."""
        return {name: getattr(self, name) for name in OPTIONS}

    def set_params(self, **options):
        """Change options; they are read and checked at `fit`."""
        if unknown := options.keys() - OPTIONS:
            raise ValueError(f"EMTC has no option {min(unknown)}; it has {', '.join(OPTIONS)}")
        vars(self).update(options)
        return self

    def __sklearn_tags__(self):
        """What scikit-learn's GridSearchCV asks for; nothing else needs scikit-learn."""
        from sklearn.utils import InputTags, Tags, TargetTags

        takes = InputTags(three_d_array=True, allow_nan=True)
        return Tags("clusterer", target_tags=TargetTags(required=False), input_tags=takes)

    def __repr__(self):
        given = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(OPTIONS[k])]
        return f"EMTC({', '.join(given)})"

    def checkpoint(self):
        """The state after an epoch, as copied tensors and plain Python, for `fit(resume=...)`."""
        self._check_fitted()
        state = {name: getattr(self, "_" + name) for name in STATE}
        state |= {"history": self.history_, "rng": self._rng.get_state()}
        state |= {"n_starts": self._o.n_starts, "net": self.net_.state_dict()}
        return copy.deepcopy(state | {"adam": self._adam.state_dict()})

    def _restore(self, state):
        """Take over a checkpoint; ValueError if it is of other options."""
        state = copy.deepcopy(state)
        self.net_.load_state_dict(state["net"])
        self._adam.load_state_dict(state["adam"])
        self._rng.set_state(state["rng"])
        self.history_ = state["history"]
        for name in STATE:
            value, stays = state[name], name in ("mean", "std")  # these two belong to X on the CPU
            move = torch.is_tensor(value) and not stays
            setattr(self, "_" + name, value.to(self._where) if move else value)
        fits = self._centers.shape == (self._o.n_clusters, self._E.shape[1])
        if not fits or not self._centers.isfinite().all() or len(self._C) != len(self._M):
            raise ValueError("the state of the checkpoint does not fit its options")

    def save(self, path):
        """Write the fitted model to `path`: to a temporary file first, then renamed."""
        state, partial = self.checkpoint(), f"{path}.{os.getpid()}.tmp"
        options = {name: vars(self._o)[name] for name in OPTIONS}
        try:
            torch.save({"options": options, "state": state}, partial)
            os.replace(partial, path)
        finally:
            if os.path.exists(partial):
                os.remove(partial)

    @classmethod
    def load(cls, path, device="auto"):
        """The model that `save` wrote; ValueError if `path` holds none, or a damaged one."""
        wrong = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError)
        where = usable(device)
        try:
            file = torch.load(path, map_location="cpu", weights_only=True)
            model = cls(**{**file["options"], "device": device, "as_printed": False})
            model._o, model._shape = settings(model), tuple(file["state"]["shape"])
            model._where = where
            model._draw(0)
            model._restore(file["state"])
        except (*wrong, ValueError, pickle.UnpicklingError):
            raise ValueError(f"{path} is not a model of EMTC.save, or a damaged one") from None
        return model


class NotFittedError(ValueError, AttributeError):
    """As in scikit-learn: what `fit` would find was asked for before it."""


def as_tensor(X):
    """X (N, T, D), or a list of series (T_i, D), of what numpy reads -> float64, NaN = missing."""
    X = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(X, (list, tuple)) and len({np.shape(series) for series in X}) > 1:
        series = [np.ma.filled(np.ma.asarray(one, dtype=np.float64), np.nan) for one in X]
        if any(one.ndim != 2 or one.shape[1] != series[0].shape[1] for one in series):
            raise ValueError("a list must hold series of shape (T_i, D), all of the same D")
        series = [torch.tensor(one) for one in series]
        X = nn.utils.rnn.pad_sequence(series, batch_first=True, padding_value=math.nan)
    X = X.detach().cpu().numpy() if torch.is_tensor(X) else np.ma.asarray(X)
    if X.dtype.kind not in "fiub" or X.ndim != 3 or 0 in X.shape:
        raise ValueError(f"X must hold real numbers, (N, T, D), none 0; got {X.dtype} {X.shape}")
    X = torch.from_numpy(np.ma.filled(X.astype(np.float64), np.nan))
    if X.isinf().any() or X.isnan().flatten(1).all(1).any():
        raise ValueError("X holds infinite values, or a sample without any; NaN = missing")
    N, T, D = X.shape
    if D > T and D > N:
        warnings.warn(f"X is {(N, T, D)}: if that is (N, D, T), transpose it", stacklevel=3)
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
    """torch's `device`, if something can be put there; "auto" is CUDA if there, else the CPU."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        probe = torch.zeros(1, device=device)
        probe.item()  # some devices, "meta" for one, hold no values
        return probe.device
    except (RuntimeError, AssertionError, TypeError):
        raise ValueError(f"device {device} is not to be had here; use auto or cpu") from None


def own(v):
    """The rows of v that this process computes: all; under torch.distributed a slice for each."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return v[len(v) * rank // size : len(v) * (rank + 1) // size]


def joined(v, n):
    """v, this process's `own` of n rows -> all of them, (n, ...); gradients pass through."""
    if not dist.is_initialized():
        return v
    rows = own(range(n))
    whole = nnf.pad(v, (0, 0) * (v.dim() - 1) + (rows.start, n - rows.stop))
    return torch.distributed.nn.functional.all_reduce(whole)


def agreed(*tensors):
    """Those of process 0: on cards the order of a sum, and with it a label, may differ."""
    for v in tensors if dist.is_initialized() else ():
        dist.broadcast(v, 0)
    return tensors


def average_gradients(net):
    """The mean over the processes. Of R and H, behind `joined`, each has the whole gradient; of all
    before it, that of its own rows times the number of processes, as backward sums there too.
    """
    if dist.is_initialized():
        grads = [w.grad for w in net.parameters() if w.grad is not None]
        whole = torch.cat([g.flatten() for g in grads])  # one message for all
        dist.all_reduce(whole)
        for g, v in zip(grads, whole.split([g.numel() for g in grads]), strict=True):
            g.copy_(v.view_as(g) / dist.get_world_size())


TERMS = ("total", "contra", "intra", "inter")
STATE = ("shape", "padding", "mean", "std", "M", "S", "E", "others", "C", "centers",
         "contrast", "hidden", "held", "unclear", "trials", "taught")  # fmt: skip
OPTIONS = {n: p.default for n, p in inspect.signature(EMTC).parameters.items()}
# The plainest. As Eq. 3 has no derivative, importance stays as drawn, and from the second epoch on
# the mask as well. What no option switches off stays ours; each NOTE(paper) says what that is.
AS_PRINTED = {"encoder": "stack", "pooling": "mean", "fusion": "average", "hide": 0.0,
              "n_starts": 1, "n_init": 1, "mask_lr": 0.0}  # fmt: skip
CHOICES = {"mask": ("evolving", "frozen", "none"), "encoder": ("bank", "stack"),
           "drop": ("ivm", "mev", "intra", "inter", "contra"), "pooling": tuple(POOLINGS),
           "fusion": ("learned", "average")}  # fmt: skip
LIMITS = {  # lowest, highest, kind
    **dict.fromkeys(("n_clusters", "n_views", "batch_size", "width", "patience", "max_keys",
                     "n_starts", "n_init"), (1, 1e9, int)),
    **dict.fromkeys(("epochs", "trial", "seed"), (0, 2**32, int)), "tau": (1e-6, 1e9, float),
    **dict.fromkeys(("epsilon", "keep", "hide"), (0, 1, float)),
    **dict.fromkeys(("alpha", "beta", "lr", "mask_lr"), (0, 1e9, float)),
}  # fmt: skip


def settings(model):
    """The options of `model`, checked, numpy's numbers as plain ones; ValueError for a bad one."""
    o = SimpleNamespace(**{**model.get_params(), **(AS_PRINTED if model.as_printed else {})})
    for name, (low, high, kind) in LIMITS.items():
        value, number = getattr(o, name), numbers.Integral if kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, number) or not low <= value <= high:
            whole = "a whole number " if kind is int else ""
            raise ValueError(f"{name} must be {whole}from {low:g} to {high:g}; got {value!r}")
        setattr(o, name, kind(value))
    o.given, o.mask = (None, o.mask) if isinstance(o.mask, str) else (o.mask, "none")
    o.drop = (o.drop,) if isinstance(o.drop, str) else tuple(map(str, o.drop))
    for name, allowed in CHOICES.items():
        for value in getattr(o, name) if name == "drop" else [getattr(o, name)]:
            if value not in allowed:
                raise ValueError(f"{name} must be of {', '.join(allowed)}; got {value!r}")
        if isinstance(getattr(o, name), str):
            setattr(o, name, str(getattr(o, name)))
    if "ivm" in o.drop:
        o.given, o.mask = None, "none"
    o.n_views = 1 if "mev" in o.drop else o.n_views
    if {"intra", "contra"} <= set(o.drop) and ("inter" in o.drop or o.n_views == 1):
        raise ValueError("drop leaves no loss to train with; keep intra, inter or contra")
    return o
