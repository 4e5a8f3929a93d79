"""EMTC: evolving-masked multivariate time-series clustering (Tan et al. 2025, arXiv 2511.17008).

Read it beside the paper, top to bottom: IVM (Eqs. 1-3), MEV (4), CRL (5-7), CMC (8-12), and Algorithm 1
with the total loss (13), the estimator `EMTC`. X is (N, T, D) float32, as in the paper; masks are bool,
True = keep (M = 1 in Eq. 3). N samples, T timestamps, D variates, V views, g clusters; B samples of a
batch, h channels of a view. Inside, variates come before time, (B, D, T), as torch's convolutions want
it. NaN = missing: such an entry is 0 as input, never kept by a mask, and counts in no loss or pooling.
"""

import inspect
import math
import numbers
import os
import pickle

import torch
import torch.nn as nn
import torch.nn.functional as F

from kmeans import kmeans

MASKS = ("evolving", "random", "uniform", "variance", "frequency", "none")
PARTS = ("ivm", "mev", "intra", "inter", "contra")
KERNELS = (5, 9, 3)  # kernel size of view 1, 2, 3, and again
TIMESTAMPS = 2048    # at most so many timestamps of a batch enter the reconstruction losses
SETTLED = 0.01      # share of cluster labels that may still change in an epoch of a converged run
RANK, POWER = 16, 0.75  # partial whitening of the fused embeddings


# ---- IVM: importance-aware masking

class Importance(nn.Module):
    """S(t) in (0, 1): how much each timestamp of each variate matters. Eqs. (1), (2)."""

    def __init__(self, D, h=4, max_keys=None):
        super().__init__()
        self.h, self.max_keys = h, max_keys
        self.f1 = nn.Conv1d(D, D * h, 3, padding=1, groups=D)  # groups: one encoder per variate
        self.f2 = nn.Conv1d(D * h, D * h, 3, padding=2, dilation=2, groups=D)
        self.Q = nn.Linear(h, h, bias=False)
        self.K = nn.Linear(h, h, bias=False)  # a bias of K would cancel in the softmax
        self.s = nn.Linear(h, 1, bias=False)  # a bias here would cancel in the standardisation
        for f in (self.f1, self.f2):  # Z and Q K^T of about unit size: torch's own start, smaller, gives
            nn.init.kaiming_normal_(f.weight)  # weights so even that S hardly varies over t
            nn.init.zeros_(f.bias)
        for f in (self.Q, self.K):
            nn.init.orthogonal_(f.weight)

    def forward(self, x, observed):
        """x (B, D, T), missing entries 0; observed (B, D, T) bool, True = seen -> S (B, D, T)."""
        B, D, T = x.shape
        w = observed.to(x.dtype)
        Z = F.relu(self.f1(x)).view(B, D, self.h, T) * w[:, :, None]      # (B, D, h, T)
        Z = self.f2(Z.flatten(1, 2)).view(B, D, self.h, T)                # Eq. (1)
        Z = Z.transpose(2, 3).contiguous()                                # (B, D, T, h)
        # Exact attention unless max_keys thins out the keys; its memory grows with T, not T^2, as torch
        # never stores the weights.
        step = math.ceil(T / (self.max_keys or T))
        Z_k, seen = Z[:, :, ::step], observed[:, :, ::step]               # (B, D, T / step, h)
        seen = None if observed.all() else (seen | ~seen.any(2, True))[:, :, None]
        S = F.scaled_dot_product_attention(self.Q(Z), self.K(Z_k), Z_k, seen)  # Eq. (2)
        # NOTE(paper): Eq. (3) compares S(t) with a scalar, but Eq. (2) gives a vector. A linear map makes
        # it a number, standardised over t, since a timestamp is redundant in comparison with the others
        # of its series, and the sigmoid puts it into (0, 1).
        S = self.s(S).squeeze(3)                                          # (B, D, T)
        n = w.sum(2, keepdim=True).clamp_min(1)
        S = (S - (S * w).sum(2, keepdim=True) / n) * w
        return torch.sigmoid(S / (S.square().sum(2, keepdim=True) / n + 1e-12).sqrt())


def threshold(S, observed, epsilon):
    """Hard mask M, bool, True = keep, where S(t) >= epsilon; S, observed and M are (B, D, T).

    A series is never masked away whole: where nothing passes, its most important timestamp stays.
    So epsilon = 0 keeps all that is observed, and epsilon = 1 one timestamp per series.
    """
    M = (S >= epsilon) & observed                                         # Eq. (3)
    best = S.masked_fill(~observed, -1).argmax(2, keepdim=True)
    top = torch.zeros_like(M).scatter_(2, best, True) & observed
    return M | (top & ~M.any(2, keepdim=True))


def straight_through(M, S):
    """Forward exactly the 0/1 mask M of the previous epoch, backward the importance S of this one.

    NOTE(paper): Eq. (3) has no derivative, so as printed nothing would teach the importance network; in
    the authors' published code nothing does. The straight-through estimator (Bengio et al. 2013, arXiv
    1308.3432) makes the mask a learned one.
    """
    return M.to(S.dtype) + (S - S.detach())


def static_mask(kind, x, observed, keep, seed):
    """The masks that do not learn (Fig. 3): bool like x (N, D, T), True = keep, about the share `keep`.

    random: of all entries; uniform: of the timestamps, evenly; variance, frequency: those of most variance
    in a window of five, or of most energy in the upper half of the spectrum. "none" keeps all observed.
    """
    T = x.shape[2]
    if kind == "none":
        return observed.clone()
    if kind == "random":
        generator = torch.Generator().manual_seed(seed)  # on the CPU: one mask for all devices
        return (torch.rand(x.shape, generator=generator) < keep).to(x.device) & observed
    if kind == "uniform":
        t = (torch.arange(T + 1, device=x.device, dtype=torch.float64) * keep).floor()
        return (t[1:] > t[:-1]).expand(x.shape) & observed
    if kind == "variance":
        mean, square = (F.avg_pool1d(v, 5, 1, 2, count_include_pad=False) for v in (x, x * x))
        score = square - mean * mean
    else:
        upper = torch.arange(T // 2 + 1, device=x.device) >= (T // 2 + 1) // 2
        score = torch.fft.irfft(torch.fft.rfft(x) * upper, n=T).abs()
    rank = score.masked_fill(~observed, -math.inf).argsort(2, descending=True).argsort(2)
    return (rank < observed.sum(2, keepdim=True) * keep) & observed


# ---- MEV: multi-endogenous views

class Encoder(nn.Module):
    """f^(v): convolutions side by side, with dilations 1, 2, 4, ... up to the series' length.

    NOTE(paper): "dilated convolution" is all that the paper says, and nothing of how views differ. Here
    by kernel size. Every second kernel sums to zero: half of the channels see a pattern's shape wherever
    its level lies, half see the level.
    """

    def __init__(self, D, T, h, k):
        super().__init__()
        dilations = min(h, 1 + int(math.log2(max(1, (T - 1) / (k - 1)))))
        self.bank = nn.ModuleList(
            nn.Conv1d(D, (h + e) // dilations, k, dilation=2 ** e, padding=2 ** e * (k // 2))
            for e in range(dilations))
        self.mix = nn.Conv1d(h, h, 1)
        nn.init.zeros_(self.mix.weight)  # a residual branch that starts as nothing

    def forward(self, x):
        """Masked input x (B, D, T) -> F^(v) (B, h, T)."""
        F_v = torch.cat([convolve(x, c) for c in self.bank], 1)           # (B, h, T)
        return F_v + self.mix(F.relu(F_v))

    @torch.no_grad()
    def initialise(self, x, generator):
        """Normal kernels, no bias, each scaled so that its channel has unit variance on x."""
        for c in self.bank:
            c.weight.copy_(torch.randn(c.weight.shape, generator=generator))
            c.bias.zero_()
            c.weight /= convolve(x, c).std((0, 2)).clamp_min(1e-6)[:, None, None]


def convolve(x, c):
    """The convolution c of x, every second of its kernels less its mean over the taps."""
    odd = torch.arange(len(c.weight), device=x.device)[:, None, None] % 2
    kernel = c.weight - odd * c.weight.mean(2, keepdim=True)
    # As an image one pixel high, channels last: dilated conv1d takes half as long again on a CPU.
    image = x[:, :, None].contiguous(memory_format=torch.channels_last)
    return F.conv2d(image, kernel[:, :, None], c.bias, 1, (0, *c.padding), (1, *c.dilation))[:, :, 0]


class MLPs(nn.Module):
    """G multi-layer perceptrons side by side: (G, n, sizes[0]) -> (G, n, sizes[-1])."""

    def __init__(self, G, sizes):
        super().__init__()
        self.W = nn.ParameterList((torch.rand(G, a, b) * 2 - 1) * (3 / a) ** 0.5
                                  for a, b in zip(sizes, sizes[1:]))
        self.b = nn.ParameterList(torch.zeros(G, 1, b) for b in sizes[1:])

    def forward(self, x):
        for layer, (W, b) in enumerate(zip(self.W, self.b)):
            x = torch.baddbmm(b, F.relu(x) if layer else x, W)
        return x


class Network(nn.Module):
    """All that is learned: importance (IVM), encoders f^(v) (MEV), decoders R and H (CRL)."""

    def __init__(self, D, T, V, h, max_keys):
        super().__init__()
        self.importance = Importance(D, max_keys=max_keys)
        self.encoders = nn.ModuleList(Encoder(D, T, h, KERNELS[v % len(KERNELS)])
                                      for v in range(V))
        self.R = MLPs(V, [h] + [32] * 5 + [D])  # six layers, as the paper has it
        self.pairs = [(i, j) for i in range(V) for j in range(V) if i != j]
        self.H = MLPs(len(self.pairs), [h, 32, 32, 32, h]) if V > 1 else None  # four layers

    def views(self, x):
        """Masked input x (B, D, T) -> F^(1) ... F^(V), (V, B, h, T)."""
        return torch.stack([f(x) for f in self.encoders])                 # Eq. (4)


# ---- CRL: reconstruction

def intra_loss(X, X_v, observed):
    """||X - X^(v)||^2 summed over the views. X, observed (n, D): n timestamps; X_v (V, n, D)."""
    # NOTE(paper): a mean over the observed entries instead of the squared norm, here and in Eqs. (7)
    # and (10), so that alpha and beta mean the same on each data set.
    error = (X - X_v).square() * observed                                 # (V, n, D)
    return error.sum() / observed.sum().clamp_min(1)                      # Eq. (5)


def inter_loss(F_j, F_ij):
    """||F^(j) - H_ij(F^(i))||^2 summed over the ordered pairs of views; both (pairs, n, h)."""
    error = (F_j - F_ij).square().mean((1, 2))                            # (pairs,)  Eq. (7)
    return error.sum()                                                    # Eq. (6)


# ---- CMC: contrast between clusters

def temporal_pooling(F_v, observed_t):
    """F^(v) (V, B, h, T) -> (V, B, 2 h), over the timestamps where anything was observed (B, T).

    NOTE(paper): Eq. (8) leaves the pooling open, and it decides much. Two numbers a channel: the mean of
    tanh(3 F), a soft share of the time for which a pattern is there, and the maximum, how strongly it is.
    """
    w = observed_t / observed_t.sum(1, keepdim=True).clamp_min(1)         # (B, T)
    share = (torch.tanh(3 * F_v) * w[:, None]).sum(3)                     # (V, B, h)
    if not observed_t.all():
        F_v = F_v.masked_fill(~observed_t[:, None], -math.inf)
    return torch.cat([share, F_v.amax(3)], 2)


def fuse(F_v, observed_t):
    """F^(fused) (B, 2 h): temporal pooling, then the average over the views."""
    return temporal_pooling(F_v, observed_t).mean(0)                      # Eq. (8)


def whitening(pooled):
    """F^(fused) of all samples (N, q) -> mean (q,) and projection (q, p), p <= RANK.

    NOTE(paper): not in the paper. Pooled features repeat each other, and k-means hears only the loudest;
    so they are standardised, reduced to their first principal components, and these brought nearer to one
    scale (POWER = 1 would make them equal).
    """
    mean, sigma = pooled.mean(0), pooled.std(0, correction=0)
    sigma = torch.where(sigma > 1e-5, sigma, 1)
    _, s, components = torch.linalg.svd((pooled - mean) / sigma, full_matrices=False)
    p = max(1, min(RANK, len(s) - 1))
    differ = s[0] > 1e-3  # else all samples are equal but for rounding
    s = (s[:p] / s[0].clamp_min(1e-12)).clamp_min(1e-2)
    return mean, components[:p].T / sigma[:, None] * s ** -POWER * differ


def contrastive_loss(E, C, i, tau):
    """Eqs. (10) to (12) for the anchors i (B,) among all embeddings E (N, p) with clusters C (N,).

    Positives share the anchor's cluster, all others are negatives; a sample is no pair of its own, and
    one alone in its cluster contributes nothing. In log space, so that no tau overflows.
    """
    E = F.normalize(E, dim=1)
    sim = E[i] @ E.T / tau                                                # (B, N)  Eq. (12)
    itself = i[:, None] == torch.arange(len(E), device=E.device)
    positive = (C[i][:, None] == C) & ~itself
    paired = positive.any(1)
    if not paired.any():
        return sim.sum() * 0
    log_pos = sim.masked_fill(~positive, -math.inf)[paired].logsumexp(1)  # Eq. (11)
    log_all = sim.masked_fill(itself, -math.inf)[paired].logsumexp(1)
    return (log_all - log_pos).mean()                                     # Eq. (10)


# ---- Algorithm 1: the estimator

class EMTC:
    """Evolving-masked clustering of multivariate time series; Algorithm 1 of arXiv 2511.17008.

    n_clusters: g; n_views: V; width: h, the channels of a view; seed: governs weights, batches, masks and
    k-means, and the caller's RNG stays as it was; device: "auto" (CUDA if there), "cpu", "cuda", ...
    epsilon: the threshold of Eq. (3) in [0, 1], 0 keeps all, 1 one timestamp per series; tau > 0 of
    Eq. (11); alpha, beta >= 0 of Eq. (13); lr, batch_size, epochs of Adam, 0 epochs = untrained.
    mask: "evolving", or static with the share `keep`: "random", "uniform", "variance", "frequency", "none";
    drop: parts to leave out, any of "ivm", "mev", "intra", "inter", "contra".
    patience: converged = at most 1 % of the cluster labels changed in each of so many last epochs;
    max_keys: None = exact attention in Eq. (2); else each timestamp attends to at most so many evenly
    spaced ones, so that time too grows with T instead of T^2 (benchmarks/NOTES.md has its error).

    X is (N, T, D), numpy or torch, NaN = missing; ValueError where it cannot be used. No method takes
    labels. After `fit`, in numpy: `labels_` (N,) int64, `cluster_centers_` (g, p), `embedding_` (N, p) unit
    rows, `importance_` (N, T, D) in (0, 1), 0 where missing, `mask_` (N, T, D) bool, True = keep;
    `history_`: one dict per epoch with epoch, total, contra, intra, inter, kept (share of the observed
    entries), label_change (share of the samples).
    """

    def __init__(self, n_clusters, n_views=2, epsilon=0.15, tau=0.1, alpha=0.1, beta=0.1, lr=1e-3,
                 epochs=200, batch_size=64, width=64, mask="evolving", keep=0.8, drop=(),
                 patience=10, max_keys=None, seed=0, device="auto"):
        self.n_clusters, self.n_views, self.epsilon, self.tau = n_clusters, n_views, epsilon, tau
        self.alpha, self.beta, self.lr, self.epochs = alpha, beta, lr, epochs
        self.batch_size, self.width, self.mask, self.keep = batch_size, width, mask, keep
        self.drop, self.patience, self.max_keys = tuple(drop), patience, max_keys
        self.seed, self.device = seed, device
        check_options(self)
        self._mask = "none" if "ivm" in self.drop else mask
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self._where = torch.device(auto if device == "auto" else device)

    def fit(self, X, on_epoch=None, resume=None):
        """Algorithm 1. `on_epoch(model, record)` is called after every epoch, when `labels_`,
        `mask_` etc. are that epoch's; `resume` is a `checkpoint()`, to go on from: on a CPU to the
        same bits as a run that never stopped. FloatingPointError if a loss or the end is not finite.
        """
        x, observed = self._prepare(X, fitting=True)
        self._begin(x, observed)                                          # line 1
        if resume is not None:
            self._restore(resume)
        while len(self.history_) < self.epochs and not self._converged():
            self.history_.append(self._epoch(x, observed))
            if on_epoch is not None:
                on_epoch(self, self.history_[-1])
        self._S, self._M = self._masks(x, observed)
        self._bank = self._embed(x, observed, self._M)
        if not (self._S.isfinite().all() and self._bank.isfinite().all()):
            raise FloatingPointError("the last step left values that are not finite; try a smaller lr")
        self._cluster()
        return self

    def fit_predict(self, X):
        """Labels (N,) of `fit`."""
        return self.fit(X).labels_

    def transform(self, X):
        """X (N, T, D), T of any length -> embeddings (N, p) float32 by the fitted network."""
        x, observed = self._prepare(X)
        E = self._normalise(self._embed(x, observed, self._masks(x, observed)[1]))
        return E.cpu().numpy()

    def predict(self, X):
        """X (N, T, D) -> the nearest cluster of each sample, (N,) int64."""
        E = torch.from_numpy(self.transform(X))
        return torch.cdist(E, torch.from_numpy(self.cluster_centers_)).argmin(1).numpy()

    def save(self, path):
        """Write the fitted model to `path`: to a temporary file first, then renamed."""
        options = {name: getattr(self, name) for name in OPTIONS}
        partial = f"{path}.{os.getpid()}.tmp"
        try:
            with open(partial, "wb") as file:
                torch.save({"options": options, "state": self.checkpoint()}, file)
            os.replace(partial, path)
        finally:
            if os.path.exists(partial):
                os.remove(partial)

    @classmethod
    def load(cls, path, device="auto"):
        """The model that `save` wrote; ValueError if `path` holds none."""
        try:
            file = torch.load(path, map_location="cpu", weights_only=True)
            model = cls(**{**file["options"], "device": device})
            model._network(*file["state"]["shape"])
            model._restore(file["state"])
        except (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError,
                ValueError, pickle.UnpicklingError):
            raise ValueError(f"{path} is not a model saved by EMTC.save") from None
        return model

    def checkpoint(self):
        """All of the state after an epoch, as tensors and plain Python, for `fit(resume=...)`."""
        return {"net": self.net_.state_dict(), "adam": self._adam.state_dict(),
                "rng": self._rng.get_state(), "history": [dict(r) for r in self.history_],
                **{name: getattr(self, "_" + name) for name in STATE}}

    def _restore(self, saved):
        if tuple(saved["shape"]) != self._shape:
            raise ValueError(f"the checkpoint is of data with (D, T) = {tuple(saved['shape'])}, "
                             f"not {self._shape}")
        self.net_.load_state_dict(saved["net"])
        self._adam.load_state_dict(saved["adam"])
        self._rng.set_state(saved["rng"])
        self.history_ = [dict(r) for r in saved["history"]]
        for name in STATE:
            value = saved[name]
            setattr(self, "_" + name, value.to(self._where) if torch.is_tensor(value) else value)

    labels_ = property(lambda self: self._C.cpu().numpy())
    cluster_centers_ = property(lambda self: self._centers.cpu().numpy())
    embedding_ = property(lambda self: self._normalise(self._bank).cpu().numpy())
    mask_ = property(lambda self: self._outside(self._M))
    importance_ = property(lambda self: self._outside(self._S))

    def _outside(self, v):
        """(N, D, T) -> numpy (N, T, D), with the common padding that `_prepare` cut off."""
        return F.pad(v, (0, self._padding)).transpose(1, 2).contiguous().cpu().numpy()

    def _prepare(self, X, fitting=False):
        """X (N, T, D), NaN = missing -> x (N, D, T) z-scored per variate, missing 0; observed."""
        if not fitting and not hasattr(self, "_centers"):
            raise ValueError("this EMTC is not fitted; call fit(X) first")
        X = torch.as_tensor(X)
        if X.ndim != 3 or 0 in X.shape:
            raise ValueError(f"X must be (N, T, D), none of them 0; got {tuple(X.shape)}")
        if not fitting and X.shape[2] != self._shape[0]:
            raise ValueError(f"X has {X.shape[2]} variates, the fitted data {self._shape[0]}")
        if fitting and self.n_clusters > len(X):
            raise ValueError(f"n_clusters = {self.n_clusters} is more than the {len(X)} samples")
        x = X.to(self._where, torch.float64).transpose(1, 2)              # (N, D, T)
        observed = ~x.isnan()
        if x.isinf().any() or not observed.flatten(1).any(1).all():
            raise ValueError("X holds infinite values, or a sample without any value; NaN is the "
                             "mark of a missing one")
        T = int(observed.any(1).any(0).nonzero().max()) + 1               # cut common padding
        x, observed = x[:, :, :T], observed[:, :, :T].contiguous()
        if fitting:
            self._padding, self._shape = X.shape[1] - T, (X.shape[2], T)
            self._shift = x.nanmean((0, 2), keepdim=True).nan_to_num()    # (1, D, 1)
            scale = (x - self._shift).square().nanmean((0, 2), keepdim=True).sqrt().nan_to_num()
            constant = scale <= 1e-7 * x.nan_to_num().abs().amax((0, 2), keepdim=True)
            self._scale = torch.where(constant, math.inf, scale)          # constant becomes 0
        return ((x - self._shift) / self._scale).nan_to_num().float().contiguous(), observed

    def _network(self, D, T):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would reseed GPUs as well
            V = 1 if "mev" in self.drop else self.n_views
            self.net_ = Network(D, T, V, self.width, self.max_keys).to(self._where)
        self._shape, self._rng = (D, T), torch.Generator().manual_seed(self.seed)
        self._adam = torch.optim.Adam(self.net_.parameters(), lr=self.lr)

    def _begin(self, x, observed):
        """Weights, first mask, first embeddings, first clusters."""
        self._network(*self._shape)
        for f in self.net_.encoders:
            f.initialise(x, self._rng)
        self.history_ = []
        # The paper: "In the first learning epoch, a randomly initialized mask set is adopted."
        first = "random" if self._mask == "evolving" else self._mask
        self._M = static_mask(first, x, observed, self.keep, self.seed)
        self._S = torch.zeros_like(x)
        # NOTE(paper): but the first clusters are those of the series as observed, since contrast confirms
        # its clusters, and so also what a random mask has spoilt in the first ones.
        self._bank = self._embed(x, observed, observed)
        self._cluster()

    def _epoch(self, x, observed):
        """One pass of Algorithm 1 over all batches; returns its record."""
        M, S, bank, sums = self._M.clone(), self._S.clone(), self._bank.clone(), {}
        E = self._normalise(self._bank)
        for i in torch.randperm(len(x), generator=self._rng).split(self.batch_size):
            i = i.to(x.device)
            keep = self._M[i].to(x.dtype)
            if self._mask == "evolving":                                  # line 3: IVM
                S_i = self.net_.importance(x[i], observed[i])
                keep = straight_through(self._M[i], S_i)
                S[i] = S_i.detach()
                M[i] = threshold(S[i], observed[i], self.epsilon)         # for the next epoch
            terms, pooled = self._losses(x[i], observed[i], keep, E, i)
            bad = [f"{name} is {term.item()}" for name, term in terms.items() if not term.isfinite()]
            if bad:
                raise FloatingPointError(f"epoch {len(self.history_) + 1}: loss term {bad[-1]}; "
                                         "try a smaller lr")
            self._adam.zero_grad()
            terms["total"].backward()                                     # line 8: Adam
            self._adam.step()
            bank[i] = pooled.detach()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() * len(i) / len(x)
        self._M, self._S, self._bank, before = M, S, bank, self._C
        self._cluster(warm=True)                                          # line 6, for the next
        return {"epoch": len(self.history_) + 1, **sums,
                "kept": float(M.sum() / observed.sum()),
                "label_change": float((before != self._C).float().mean())}

    def _losses(self, x, observed, keep, E, i):
        """The loss terms of batch i by name, and its pooled embeddings (B, 2 h)."""
        seen = observed.any(1)                                            # (B, T)
        F_v = self.net_.views(x * keep)                                   # line 4: MEV
        pooled = fuse(F_v, seen)                                          # (B, 2 h)
        intra = inter = contra = x.new_zeros(())
        # NOTE(paper): on long series the means of Eqs. (5) and (7) are taken over a random sample of the
        # batch's timestamps, which bounds the memory; the expectation is the same.
        at = seen.flatten().nonzero().squeeze(1)                          # (n,)
        if len(at) > TIMESTAMPS:
            pick = torch.randperm(len(at), generator=self._rng)[:TIMESTAMPS]
            at = at[pick.to(at.device)]
        f = F_v.transpose(2, 3).flatten(1, 2)[:, at]                      # (V, n, h)
        if "intra" not in self.drop:                                      # line 5: CRL
            X, O = (v.transpose(1, 2).flatten(0, 1)[at] for v in (x, observed))  # (n, D)
            intra = intra_loss(X, self.net_.R(f), O)
        if "inter" not in self.drop and self.net_.H is not None:
            from_, to = map(list, zip(*self.net_.pairs))
            inter = inter_loss(f[to], self.net_.H(f[from_]))
        if "contra" not in self.drop:                                     # line 7: CMC
            # NOTE(paper): Eq. (10) is over all N. Samples outside the batch stand with their embeddings,
            # and all with their clusters, of the epoch before, without gradient.
            E = E.index_copy(0, i, self._normalise(pooled))               # (N, p)
            contra = contrastive_loss(E, self._C, i, self.tau)
        total = contra + self.alpha * intra + self.beta * inter           # Eq. (13)
        return {"total": total, "contra": contra, "intra": intra, "inter": inter}, pooled

    def _cluster(self, warm=False):
        """Line 6: k-means on all embeddings; `warm` starts from the means of the last clusters."""
        self._mean, self._W = whitening(self._bank)
        E, init = self._normalise(self._bank), None
        if warm and len(self._C.unique()) == self.n_clusters:
            init = torch.stack([E[self._C == c].mean(0) for c in range(self.n_clusters)])
        found = kmeans(E, self.n_clusters, seed=self._rng, init=init)     # Eq. (9)
        self._C, self._centers = found.labels, found.centers

    def _normalise(self, pooled):
        """F^(fused) (B, 2 h) -> whitened rows of unit length (B, p), which Eqs. (9), (12) use."""
        return F.normalize((pooled - self._mean) @ self._W, dim=1)

    @torch.no_grad()
    def _embed(self, x, observed, M):
        return torch.cat([fuse(self.net_.views(x[i] * M[i]), observed[i].any(1))
                          for i in torch.arange(len(x)).split(self.batch_size)])

    @torch.no_grad()
    def _masks(self, x, observed):
        """S and M (N, D, T) by the present network, or a static M and S = 0."""
        if self._mask != "evolving":
            return torch.zeros_like(x), static_mask(self._mask, x, observed, self.keep, self.seed)
        S = torch.cat([self.net_.importance(x[i], observed[i])
                       for i in torch.arange(len(x)).split(self.batch_size)]) * observed
        return S, threshold(S, observed, self.epsilon)

    def _converged(self):
        last = [r["label_change"] for r in self.history_[-self.patience:]]
        return len(last) == self.patience and max(last) <= SETTLED


STATE = ("shape", "padding", "shift", "scale", "M", "S", "bank", "C", "centers", "mean", "W")
OPTIONS = list(inspect.signature(EMTC).parameters)
LIMITS = ([(name, 1, 1e9, int) for name in ("n_clusters", "n_views", "batch_size", "width", "patience",
                                             "max_keys")]
          + [(name, 0, 2 ** 62, int) for name in ("epochs", "seed")]
          + [(name, 0, 1, float) for name in ("epsilon", "keep")]
          + [(name, 0, 1e9, float) for name in ("alpha", "beta", "lr")] + [("tau", 1e-6, 1e9, float)])


def check_options(model):
    """ValueError, one line, for an option of EMTC that cannot be; numpy's numbers become plain ones."""
    for name, low, high, kind in LIMITS:
        value = getattr(model, name)
        if value is None and name == "max_keys":
            continue
        if not isinstance(value, numbers.Integral if kind is int else numbers.Real) or not low <= value <= high:
            raise ValueError(f"{name} must be {'a whole number ' * (kind is int)}from {low} to "
                             f"{high:g}; got {value!r}")
        setattr(model, name, kind(value))
    if model.mask not in MASKS or not set(model.drop) <= set(PARTS):
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, and drop any of "
                         f"{', '.join(PARTS)}; got {model.mask!r} and {model.drop}")
    if {"intra", "inter", "contra"} <= set(model.drop):
        raise ValueError("drop leaves no loss to train with; keep intra, inter or contra")
