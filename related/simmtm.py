"""SimMTM (Dong et al., NeurIPS 2023, arXiv 2302.00861): a series rebuilt from masked neighbours.

Several masked copies of each series are encoded; every series is then rebuilt from the weighted
sum of ALL OTHER rows of the batch (its own copies, the other originals and their copies), and the
weights are similarities that a contrastive loss shapes. Masking one copy destroys the temporal
variation; several copies together still show it.

The paper's full text was not at hand. Written from seed document 003 and from notes on the
published code (thuml/SimMTM @169513be); "Eq. (S1)" to "(S8)" are the notes' numbers, which may not
be the paper's own. No code is copied.

    python train.py --data BasicMotions --method simmtm

What a pre-trained network is for beside clustering (classification, forecasting) is in
`fine_tune.py`.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from related.common import Estimator, check_choice, check_whole


def geometric_mask(n, T, ratio, mean_run, generator):
    """n independent two-state Markov chains over T steps, True = keep: (n, T) bool.

    ratio in (0, 1) is the expected masked share, mean_run >= 1 the mean length of a masked run.
    Vectorised over the chains: the only loop is over time.
    """
    if not 0 < ratio < 1 or mean_run < max(1, ratio / (1 - ratio)):
        raise ValueError(
            f"mask ratio {ratio}, mean run {mean_run}: need 0 < ratio < 1, "
            "mean run >= 1 and >= ratio / (1 - ratio)"
        )
    leave_masked = 1 / mean_run  # Eq. (S1): the stay in a state is geometric
    leave_kept = leave_masked * ratio / (1 - ratio)  # so that the stationary share is `ratio`
    u = torch.rand(T, n, generator=generator)
    keep = torch.empty(T, n, dtype=torch.bool)
    keep[0] = u[0] >= ratio
    for t in range(1, T):
        leave = torch.where(keep[t - 1], leave_kept, leave_masked)
        keep[t] = keep[t - 1] ^ (u[t] < leave)
    return keep.T  # (n, T)


def masked_copies(x, M, ratio, mean_run, generator):
    """x (B, T, D) and M masked copies of it, masked entries 0: (B (M+1), T, D).

    Rows are [originals; copy 1; ...; copy M], so row u belongs to series u mod B. Each (series,
    copy, variate) has a mask of its own.
    """
    B, T, D = x.shape
    keep = geometric_mask(M * B * D, T, ratio, mean_run, generator)
    keep = keep.reshape(M * B, D, T).transpose(1, 2).to(x.device)  # (MB, T, D)
    return torch.cat([x, x.repeat(M, 1, 1) * keep])  # ((M+1)B, T, D)


def similarity(s):
    """Cosine similarities of the rows of s (R, p): (R, R) in [-1, 1]."""
    s = functional.normalize(s, dim=1)
    return s @ s.T  # Eq. (S3)


def log_weights(R, tau):
    """log softmax over all rows but the row itself: (R, R), -inf on the diagonal."""
    itself = torch.eye(len(R), dtype=torch.bool, device=R.device)
    return functional.log_softmax((R / tau).masked_fill(itself, -torch.inf), dim=1)  # Eq. (S4)


def aggregate(log_w, z):
    """Each row as the weighted sum of all other rows: z (R, h, L) -> (R, h, L)."""
    return torch.einsum("uv,vhl->uhl", log_w.exp(), z)  # Eq. (S5)


def relatives(rows, B):
    """(rows, rows) bool: True where two different rows come from the same of B series."""
    series = torch.arange(rows) % B
    return (series[:, None] == series[None, :]) & ~torch.eye(rows, dtype=torch.bool)


def contrastive_loss(log_w, relative):
    """Mean over rows of the summed -log weight of a row's M relatives; 0-d, least value M ln M.

    # NOTE(paper): the target is not normalised over the M relatives (as in the published code),
    # so the loss is M ln M, not 0, when all weight is on them evenly. The paper may sum over rows.
    """
    return -log_w[relative].sum() / len(log_w)  # Eq. (S7)


class Block(nn.Module):
    """Residual block: two convolutions over time, and a strided 1x1 one beside them."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        kernel = 2 * math.ceil(stride * 1.5) + 1  # 3 at stride 1, 7 at stride 2; sees every step
        self.body = nn.Sequential(
            nn.Conv1d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm1d(c_out),
            nn.ReLU(),
            nn.Conv1d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm1d(c_out),
        )
        self.skip = nn.Conv1d(c_in, c_out, 1, stride)

    def forward(self, x):
        return functional.relu(self.body(x) + self.skip(x))


class Attention(nn.Module):
    """Multi-head attention with dropout and without the residual."""

    def __init__(self, d, heads, dropout):
        super().__init__()
        self.mha = nn.MultiheadAttention(d, heads, dropout=dropout, batch_first=True)

    def forward(self, query, key):
        return self.mha(query, key, key, need_weights=False)[0]  # (B, L_query, d)


class TSTLayer(nn.Module):
    """Transformer layer of TST: batch, not layer, normalisation after each residual."""

    def __init__(self, d, heads, dropout):
        super().__init__()
        self.attention = Attention(d, heads, dropout)
        self.ffn = nn.Sequential(
            nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * d, d)
        )
        self.norm1, self.norm2 = nn.BatchNorm1d(d), nn.BatchNorm1d(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h):
        h = h + self.dropout(self.attention(h, h))
        h = self.norm1(h.transpose(1, 2)).transpose(1, 2)  # (B, d, L) for the norm, and back
        h = h + self.dropout(self.ffn(h))
        return self.norm2(h.transpose(1, 2)).transpose(1, 2)


class TST(nn.Module):
    """Transformer over timestamps: (B, T, D) -> (B, L, d), L = T up to `max_tokens`.

    # NOTE(paper): TST reads every timestamp. Beyond max_tokens steps, ceil(T / max_tokens)
    # neighbours make one token, since attention costs L^2.
    """

    def __init__(self, T, D, d, heads=4, layers=2, dropout=0.1, max_tokens=128):
        super().__init__()
        self.patch = math.ceil(T / max_tokens)
        L = math.ceil(T / self.patch)
        self.project = nn.Linear(self.patch * D, d)
        self.position = nn.Parameter(torch.empty(L, d).uniform_(-0.02, 0.02))
        self.layers = nn.Sequential(*(TSTLayer(d, heads, dropout) for _ in range(layers)))

    def forward(self, x):
        B, T, _ = x.shape
        x = functional.pad(x, (0, 0, 0, -T % self.patch))
        x = x.reshape(B, len(self.position), -1)  # (B, L, patch D)
        h = math.sqrt(self.position.shape[1]) * self.project(x) + self.position
        return functional.gelu(self.layers(h))  # (B, L, d)


class Network(nn.Module):
    """Encoder, projector and decoder; the loss weights sigma are parameters too.

    # NOTE(paper): "1D-ResNet" in the seed, three plain convolution blocks on the first variate
    # only in the published code. Here: residual blocks, all variates; or TST, all variates.
    # NOTE(paper): the published code decodes with one Linear from all of z to the whole series:
    # T D h L' weights, 1e8 and more on wide data. Here the decoder is an MLP over channels at
    # each latent step, which gives that step's own stretch of the series.
    """

    def __init__(self, T, D, encoder="conv", h=64, p=128):
        super().__init__()
        self.T, self.D = T, D
        if encoder == "conv":
            first = max(2, math.ceil(T / 64))  # at most 32 latent steps, however long the series
            self.stretch = 2 * first
            self.encoder = nn.Sequential(Block(D, h // 2, first), Block(h // 2, h, 2), Block(h, h))
            self.latent_steps = math.ceil(math.ceil(T / first) / 2)  # L'
        else:
            self.encoder = TST(T, D, h, max_tokens=32)
            self.stretch, self.latent_steps = self.encoder.patch, len(self.encoder.position)
        self.projector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(h * self.latent_steps, 2 * p, bias=False),
            nn.BatchNorm1d(2 * p),
            nn.ReLU(),
            nn.Linear(2 * p, p),
        )
        self.decoder = nn.Sequential(
            nn.Linear(h, 2 * h), nn.ReLU(), nn.Linear(2 * h, self.stretch * D)
        )
        self.sigma = nn.Parameter(torch.ones(2))

    def encode(self, x):
        """Eq. (S2): x (R, T, D) -> z (R, h, L')."""
        if isinstance(self.encoder, TST):
            return self.encoder(x).transpose(1, 2)
        return self.encoder(x.transpose(1, 2))

    def decode(self, z):
        x = self.decoder(z.transpose(1, 2))  # (R, L', stretch D)
        return x.reshape(len(z), -1, self.D)[:, : self.T]  # (R, T, D)

    def forward(self, rows, tau):
        """rows (R, T, D) -> rebuilt series (R, T, D) and log weights (R, R)."""
        z = self.encode(rows)
        log_w = log_weights(similarity(self.projector(z)), tau)  # projector(z): (R, p)
        return self.decode(aggregate(log_w, z)), log_w


def balanced(losses, sigma):
    """Sum of the losses with learned weights 1 / (2 sigma^2), held off 0 by ln(1 + sigma^2).

    # NOTE(paper): the seed adds three losses with no weights; the published code has two losses and
    # this formula (not Kendall's ln sigma). Read as the code.
    """
    return (torch.stack(losses) / (2 * sigma**2) + torch.log1p(sigma**2)).sum()  # Eq. (S8)


class SimMTM(Estimator):
    """SimMTM as an estimator; transform gives the mean over time of z: (N, 64).

    n_clusters, epochs, batch_size, lr, seed, device, on_epoch: see related.common.Estimator.
    M          masked copies of each series (the code's rule: ceil(1.5 / (1 - ratio)), 3 at 0.5)
    ratio      masked share, in (0, 1)
    mean_run   mean length of a masked run, in steps
    tau        temperature of the weights
    encoder    "conv" (residual convolutions) or "transformer" (TST, at most 32 tokens)

    history_ has: loss, rec (mean squared error of the originals, in z-scored units), con (Eq. S7),
    own (weight that a row gives to its own relatives; M / (B (M + 1) - 1) if blind, in a batch of
    B series), and the two sigma.
    """

    def __init__(
        self,
        n_clusters=None,
        epochs=80,
        batch_size=32,
        lr=3e-3,
        seed=0,
        device="auto",
        on_epoch=None,
        M=3,
        ratio=0.5,
        mean_run=3,
        tau=0.2,
        encoder="conv",
    ):
        super().__init__(n_clusters, epochs, batch_size, lr, seed, device, on_epoch)
        check_whole(1, M=M)
        check_choice(("conv", "transformer"), encoder=encoder)
        if not tau > 0:
            raise ValueError(f"tau {tau}: need a temperature above 0")
        geometric_mask(1, 1, ratio, mean_run, torch.Generator())  # refuses what it cannot draw
        self.M, self.ratio, self.mean_run, self.tau = M, ratio, mean_run, tau
        self.encoder = encoder

    def build(self, T, D):
        return Network(T, D, self.encoder)

    def optimizer(self, net):
        return torch.optim.Adam(net.parameters(), lr=self.lr, betas=(0.9, 0.99))

    def parts(self, net, x, generator):
        B = len(x)
        rows = masked_copies(x, self.M, self.ratio, self.mean_run, generator)
        rebuilt, log_w = net(rows, self.tau)
        # NOTE(paper): the originals only. The classification code scores all rows against their
        # own input, so that a masked row must give back its zeros; its forecasting code does not.
        rec = functional.mse_loss(rebuilt[:B], x)  # Eq. (S6)
        relative = relatives(len(rows), B).to(x.device)
        con = contrastive_loss(log_w, relative)
        return {
            "loss": balanced([con, rec], net.sigma),
            "rec": rec,
            "con": con,
            "own": log_w[relative].exp().sum() / len(rows),
            "sigma_con": net.sigma[0],
            "sigma_rec": net.sigma[1],
        }

    def embed(self, net, x):
        # NOTE(paper): classification fine-tunes on all of z. For k-means, the mean over time; the
        # projector's output tells each series from every other one and clusters worst.
        return net.encode(x).mean(2)  # (B, h)
