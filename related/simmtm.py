"""SimMTM (Dong et al., NeurIPS 2023, arXiv 2302.00861): rebuild a series from its masked neighbours.

Several masked copies of each series are encoded; every series is then rebuilt from the weighted
sum of ALL OTHER rows of the batch (its own copies, the other originals and their copies), and the
weights are similarities that a contrastive loss shapes. Masking one copy destroys the temporal
variation; several copies together still show it.

The paper's full text was not at hand. Written from seed document 003 and from notes on the
published code (thuml/SimMTM @169513be); "Eq. (S1)" to "(S8)" are the notes' numbers, which may not be the
paper's own. No code is copied.

    python related/simmtm.py --data BasicMotions
"""
import math
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

if not __package__:  # run as a script: kmeans.py and uea_loader.py lie one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from related.common import Estimator, check_whole, parser, run


def geometric_mask(n, T, ratio, mean_run, generator):
    """n independent two-state Markov chains over T steps, True = keep: (n, T) bool.

    ratio in (0, 1) is the expected masked share, mean_run >= 1 the mean length of a masked run.
    Vectorised over the chains: the only loop is over time.
    """
    if not 0 < ratio < 1 or mean_run < max(1, ratio / (1 - ratio)):
        raise ValueError(f"mask ratio {ratio}, mean run {mean_run}: need 0 < ratio < 1, "
                         "mean run >= 1 and >= ratio / (1 - ratio)")
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
    s = F.normalize(s, dim=1)
    return s @ s.T  # Eq. (S3)


def log_weights(R, tau):
    """log softmax over all rows but the row itself: (R, R), -inf on the diagonal."""
    itself = torch.eye(len(R), dtype=torch.bool, device=R.device)
    return F.log_softmax((R / tau).masked_fill(itself, -torch.inf), dim=1)  # Eq. (S4)


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
    # so the loss is M ln M, not 0, when all weight is on them evenly. The paper may sum, not average.
    """
    return -log_w[relative].sum() / len(log_w)  # Eq. (S7)


class Block(nn.Module):
    """Residual block: two convolutions over time, and a strided 1x1 one beside them."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        kernel = 2 * math.ceil(stride * 1.5) + 1  # 3 at stride 1, 7 at stride 2; sees every step
        self.body = nn.Sequential(
            nn.Conv1d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm1d(c_out), nn.ReLU(),
            nn.Conv1d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm1d(c_out))
        self.skip = nn.Conv1d(c_in, c_out, 1, stride)

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


class Network(nn.Module):
    """Encoder, projector and decoder; the loss weights sigma are parameters too.

    # NOTE(paper): "1D-ResNet" in the seed, three plain convolution blocks on the first variate
    # only in the published code. Here: residual blocks, all variates.
    # NOTE(paper): the published code decodes with one Linear from all of z to the whole series:
    # T D h L' weights, 1e8 and more on wide data. Here the decoder is an MLP over channels at
    # each latent step, which gives that step's own stretch of the series.
    """

    def __init__(self, T, D, h=64, p=128):
        super().__init__()
        first = max(2, math.ceil(T / 64))  # at most 32 latent steps, however long the series
        self.stretch, self.T, self.D = 2 * first, T, D
        self.encoder = nn.Sequential(Block(D, h // 2, first), Block(h // 2, h, 2), Block(h, h))
        steps = math.ceil(math.ceil(T / first) / 2)  # L'
        self.projector = nn.Sequential(
            nn.Flatten(), nn.Linear(h * steps, 2 * p, bias=False), nn.BatchNorm1d(2 * p), nn.ReLU(),
            nn.Linear(2 * p, p))
        self.decoder = nn.Sequential(
            nn.Linear(h, 2 * h), nn.ReLU(), nn.Linear(2 * h, self.stretch * D))
        self.sigma = nn.Parameter(torch.ones(2))

    def encode(self, x):
        return self.encoder(x.transpose(1, 2))  # Eq. (S2): (R, T, D) -> (R, h, L')

    def decode(self, z):
        x = self.decoder(z.transpose(1, 2))  # (R, L', stretch D)
        return x.reshape(len(z), -1, self.D)[:, :self.T]  # (R, T, D)

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
    return (torch.stack(losses) / (2 * sigma ** 2) + torch.log1p(sigma ** 2)).sum()  # Eq. (S8)


class SimMTM(Estimator):
    """SimMTM as an estimator; transform gives the mean over time of z: (N, 64).

    n_clusters, epochs, batch_size, lr, seed, device, on_epoch: see related.common.Estimator.
    M          masked copies of each series (the code's rule: ceil(1.5 / (1 - ratio)), 3 at 0.5)
    ratio      masked share, in (0, 1)
    mean_run   mean length of a masked run, in steps
    tau        temperature of the weights

    history_ has: loss, rec (mean squared error of the originals, in z-scored units), con (Eq. S7),
    own (weight that a row gives to its own relatives), and the two sigma.
    """

    def __init__(self, n_clusters=None, epochs=80, batch_size=32, lr=3e-3, seed=0, device="auto",
                 on_epoch=None, M=3, ratio=0.5, mean_run=3, tau=0.2):
        super().__init__(n_clusters, epochs, batch_size, lr, seed, device, on_epoch)
        check_whole(1, M=M)
        if not tau > 0:
            raise ValueError(f"tau {tau}: need a temperature above 0")
        geometric_mask(1, 1, ratio, mean_run, torch.Generator())  # refuses what it cannot draw
        self.M, self.ratio, self.mean_run, self.tau = M, ratio, mean_run, tau

    def build(self, T, D):
        return Network(T, D)

    def optimizer(self, net):
        return torch.optim.Adam(net.parameters(), lr=self.lr, betas=(0.9, 0.99))

    def loss(self, net, x):
        parts = self._losses(net, x, self.generator_)
        total = balanced([parts["con"], parts["rec"]], net.sigma)
        return total, parts | {"sigma_con": net.sigma[0], "sigma_rec": net.sigma[1]}

    def _losses(self, net, x, generator):
        B = len(x)
        rows = masked_copies(x, self.M, self.ratio, self.mean_run, generator)
        rebuilt, log_w = net(rows, self.tau)
        # NOTE(paper): the originals only. The classification code scores all rows against their
        # own input, so that a masked row must give back its zeros; its forecasting code does not.
        rec = F.mse_loss(rebuilt[:B], x)  # Eq. (S6)
        relative = relatives(len(rows), B).to(x.device)
        own = log_w[relative].exp().sum() / len(rows)
        return {"rec": rec, "con": contrastive_loss(log_w, relative), "own": own}

    def evaluate(self, X, seed=0):
        """The parts of the loss on X (N, T, D), eval mode, masks and batches drawn from `seed`.

        Returns {"rec", "con", "own"}. Weights that know nothing would give
        own = M / (B (M + 1) - 1) in a batch of B series.
        """
        return self._mean_parts(X, seed, self._losses)

    def embed(self, net, x):
        # NOTE(paper): classification fine-tunes on all of z. For k-means, the mean over time; the
        # projector's output tells each series from every other one and clusters worst.
        return net.encode(x).mean(2)  # (B, h)


def main():
    p = parser("SimMTM: train without labels, cluster with k-means, score.")
    p.add_argument("--M", type=int, default=3, help="masked copies of each series")
    args = p.parse_args()
    run(SimMTM, args, M=args.M)


if __name__ == "__main__":
    main()
