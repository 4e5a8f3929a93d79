"""What makes NC-VQVAE non-contrastive: the augmented view and the losses between two views.

Source: notes on the published code; Eqs. (N1) to (N5) are numbered in nc_vqvae.py's order, not the
paper's.
"""

import torch
from torch.nn import functional

# ---- augmentations ------------------------------------------------------------------------------
# x (B, T, D) on any device and a CPU torch.Generator -> a tensor of x's shape; one draw per series,
# the same for all its variates. A run uses one of them.


def window_warp(x, generator):
    """Amplitude resize, then window warp: 0.4 T steps run 0.9 to 2 times as long; x (B, T, D)."""
    B, T, _ = x.shape
    gain = 1 + 0.2 * torch.randn(B, 1, 1, generator=generator)
    width = 0.4 * T
    start = torch.rand(B, 1, generator=generator) * (T - 1 - width)
    stretch = 0.9 + 1.1 * torch.rand(B, 1, generator=generator)
    # Clock of the warped series, squeezed back onto T steps, read on the clock of x.
    clock = torch.linspace(0, 1, T) * (T - 1 + (stretch - 1) * width)  # (B, T)
    inside = (clock - start).clamp(min=0).minimum(stretch * width)  # time spent in the window
    source = clock - inside + inside / stretch  # (B, T) in [0, T - 1]
    low = source.floor().clamp(0, T - 2)
    part = (source - low)[..., None].to(x.device)

    def at(step):
        return x.gather(1, step.long()[..., None].to(x.device).expand_as(x))

    return gain.to(x.device) * ((1 - part) * at(low) + part * at(low + 1))


def slice_shuffle(x, generator):
    """Cut each series at 3 random steps and put the 4 pieces into random order; x (B, T, D)."""
    B, T, _ = x.shape
    cuts = torch.rand(B, 1, 3, generator=generator) * T
    piece = (torch.arange(T)[:, None] >= cuts).sum(-1)  # (B, T) in 0..3
    place = torch.rand(B, 4, generator=generator).argsort(dim=1)  # where each piece goes
    order = (place.gather(1, piece) * T + torch.arange(T)).argsort(dim=1)  # (B, T)
    return x.gather(1, order[..., None].to(x.device).expand_as(x))


def gauss(x, generator):
    """x plus noise of standard deviation 0.05."""
    return x + 0.05 * torch.randn(x.shape, generator=generator).to(x.device)


def same(x, generator):
    """x itself: a second view that is no other view, the control of the ablation."""
    return x


AUGMENT = {"warp": window_warp, "slice": slice_shuffle, "gauss": gauss, "none": same}


# ---- non-contrastive losses on two batches of projections y, ya (B, P) --------------------------


def off_diagonal(C):
    """C (P, P) with zeros on the diagonal."""
    return C - torch.diag(torch.diag(C))


def barlow_twins(y, ya, lam=0.005):
    """Barlow Twins: cross-correlation C of the two views -> identity; 0-d, least value 0.

    (sum_i (1 - C_ii)^2 + lam sum_{i != j} C_ij^2) / P.  # Eq. (N1)
    """

    def norm(v):
        return (v - v.mean(0)) / torch.sqrt(v.var(0, unbiased=False) + 1e-5)

    C = norm(y).T @ norm(ya) / len(y)  # (P, P)
    return (((1 - torch.diag(C)) ** 2).sum() + lam * (off_diagonal(C) ** 2).sum()) / len(C)


def hinge_variance(y):
    """Mean over features of how far the standard deviation is below 1.  # Eq. (N2)"""
    return functional.relu(1 - torch.sqrt(y.var(0) + 1e-4)).mean()


def vicreg(y, ya, alike=25, spread=25, apart=1):
    """Invariance, variance and covariance of y, ya (B, P): 0-d, at least 0.  # Eq. (N3)"""

    def covariance(v):
        v = v - v.mean(0)
        return (off_diagonal(v.T @ v / (len(v) - 1)) ** 2).sum() / v.shape[1]

    variance = hinge_variance(y) + hinge_variance(ya)
    return (
        alike * functional.mse_loss(y, ya)
        + spread * variance
        + apart * (covariance(y) + covariance(ya))
    )


def vibcreg(y, ya, alike=25, spread=25, apart=100):
    """Invariance, variance and correlation; the last is free of the features' scale.  # Eq. (N4)"""

    def correlation(v):
        v = functional.normalize(v - v.mean(0), dim=0)  # each feature to unit length over the batch
        return (off_diagonal(v.T @ v) ** 2).mean()

    variance = hinge_variance(y) + hinge_variance(ya)
    return (
        alike * functional.mse_loss(y, ya)
        + spread * variance
        + apart * (correlation(y) + correlation(ya))
    )


def iter_norm(y, steps=5, group=64, eps=1e-5):
    """Whiten y (B, P) over the batch in groups of features, by Newton's iteration.  # Eq. (N5)

    # NOTE(paper): as in the code, five steps and groups of 64. Then the result is not white: random
    # features come out with a variance of .51 in the published batches of 128 and of .35 in our 32,
    # which span only 31 of the 64 directions; so Eq. (N2) does not reach 0.
    """
    out = []
    for v in (y - y.mean(0)).split(group, dim=1):
        eye = torch.eye(v.shape[1], device=v.device, dtype=v.dtype)
        S = v.T @ v / len(v) + eps * eye
        trace = torch.diag(S).sum()
        P = eye
        for _ in range(steps):
            P = 0.5 * (3 * P - P @ P @ P @ S / trace)  # -> (S / trace)^(-1/2)
        out.append(v @ P / torch.sqrt(trace))
    return torch.cat(out, dim=1)


# name: (loss, its weights): the first is that of the loss itself, the others those of its terms.
# NOTE(paper): the seed says VICReg and VIbCReg for one thing; the published code runs VIbCReg. The
# weight of VICReg is ours, taken from VIbCReg's.
SSL = {
    "barlow": (barlow_twins, (1.0, 0.005)),
    "vibcreg": (vibcreg, (0.01, 25, 25, 100)),
    "vicreg": (vicreg, (0.01, 25, 25, 1)),
}
