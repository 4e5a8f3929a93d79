"""MaskGIT prior: stage 2 of NC-VQVAE (`nc_vqvae.py`).

Stage 1 turns a series into n code indices ("tokens"). This file learns which tokens go together and
draws new ones. It is no autoregressive model: a transformer without causal mask sees some tokens,
guesses all the others at once, keeps the guesses that it is surest of, and asks again.

Sources: "Blending Low and High-Level Semantics of Time Series for Better Masked Time Series
Generation" (arXiv 2408.16613); Chang et al., "MaskGIT" (arXiv 2202.04200); Lee et al.,
"TimeVQVAE" (arXiv 2303.04743). Their texts were not at hand: equations are numbered here, (P1) to
(P4), after notes on the published code.

B series, n tokens each, K codes. Masks are bool, True = keep: `known[b, i]` says that token i of
series b is visible.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from related.common import train

CODES = ("frozen", "tuned", "random")


def n_masked(progress, n):
    """Masked tokens at `progress` in [0, 1] of the decoding: all n at 0, none at 1.  # Eq. (P1)"""
    return math.floor(n * math.cos(math.pi / 2 * progress))


class Block(nn.Module):
    """Pre-norm transformer block with full (two-way) attention, (B, n, dim) -> (B, n, dim)."""

    def __init__(self, dim, n_heads):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.attention = nn.MultiheadAttention(dim, n_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, h):
        q = self.norm1(h)
        h = h + self.attention(q, q, q, need_weights=False)[0]
        return h + self.mlp(self.norm2(h))


class Prior(nn.Module):
    """p(token_i | known tokens, class) for every position i.

    codebook: (K, d) stage-1 codes, by which the prior reads tokens. codes, one of CODES: "frozen"
    (a copy that stays), "tuned" (a copy that is trained on) or "random" (noise of the same spread,
    trained on). A generated series is decoded with the stage-1 codes in any case. n_classes = 0
    gives an unconditional prior.
    """

    def __init__(
        self, codebook, n_tokens, n_classes=0, dim=64, n_layers=3, n_heads=2, codes="frozen"
    ):
        super().__init__()
        K, d = codebook.shape
        self.n_tokens, self.n_classes = n_tokens, n_classes
        # NOTE(paper): the published code compares SSL and plain VQVAE under two different priors
        # (the plain one ties its output weights and keeps what the other masks). One for all here.
        # NOTE(paper): frozen in the seed, "tuned" in the published code.
        frozen = codes == "frozen"
        self.embed = nn.Embedding.from_pretrained(codebook.detach().clone(), freeze=frozen)
        self.mask_vector = nn.Parameter(torch.randn(d))
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, d))
        self.stem = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, dim))
        self.class_embed = nn.Embedding(n_classes + 1, dim)  # row n_classes means "no class given"
        self.blocks = nn.Sequential(*[Block(dim, n_heads) for _ in range(n_layers)])
        self.head = nn.Sequential(
            nn.RMSNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, K)
        )
        if codes == "random":
            nn.init.normal_(self.embed.weight, std=float(codebook.std()))

    def forward(self, tokens, known, labels):
        """tokens int64, known bool (True = keep), both (B, n), labels int64 (B,) -> (B, n, K)."""
        e = torch.where(known[..., None], self.embed(tokens), self.mask_vector)  # (B, n, d)
        h = self.stem(e + self.position)  # (B, n, dim)
        h = torch.cat([self.class_embed(labels)[:, None], h], dim=1)  # (B, 1 + n, dim)
        return self.head(self.blocks(h)[:, 1:])  # (B, n, K)


def gumbel(shape, generator):
    """Standard Gumbel noise on the CPU (so that a seed draws the same on every device)."""
    u = torch.rand(shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(u))


def draw(logits, generator):
    """One draw from softmax(logits) over the last axis (Gumbel-max): (..., K) -> int64 (...)."""
    return (logits + gumbel(logits.shape, generator).to(logits.device)).argmax(-1)


def random_known(B, n, generator):
    """Training masks, bool (B, n), True = keep; n_masked(tau, n) are hidden, tau ~ U(0, 1)."""
    # NOTE(paper): one tau per batch in the published code; one per series here, so that a small
    # batch sees all shares.
    tau = torch.rand(B, generator=generator).tolist()
    hidden = torch.tensor([max(1, n_masked(t, n)) for t in tau])  # (B,), one at least to learn from
    rank = torch.rand(B, n, generator=generator).argsort(dim=1).argsort(dim=1)  # (B, n) in 0..n-1
    return rank >= hidden[:, None]


def prior_loss(prior, tokens, labels, known):
    """Cross-entropy of the hidden tokens, nats per token (uniform guess: ln K).  # Eq. (P2)"""
    logits = prior(tokens, known, labels)
    # NOTE(paper): the published code scores all n positions; a visible token is a copy task, so
    # hidden ones only here, as we remember MaskGIT.
    return functional.cross_entropy(logits[~known], tokens[~known])


def fit_prior(
    prior, token_logits, labels, epochs, batch_size, lr, generator, on_epoch=None, p_drop_class=0.2
):
    """Train `prior` in place; returns the history, one dict per epoch (see `common.train`).

    token_logits: (N, n, K), the stochastic quantisation of the training series: tokens are drawn
    anew at each step; labels: int64 (N,), equal to prior.n_classes where no class is given;
    p_drop_class: share of labels left out, so that p(tokens) is learned beside p(tokens | class);
    generator: CPU torch.Generator.
    """

    def parts_of(rows):
        tokens = draw(token_logits[rows.to(device)], generator)  # (B, n)
        drop = torch.rand(len(rows), generator=generator) < p_drop_class
        given = labels[rows.to(device)].masked_fill(drop.to(device), prior.n_classes)
        known = random_known(len(rows), tokens.shape[1], generator).to(device)
        return {"loss": prior_loss(prior, tokens, given, known)}

    device = token_logits.device
    optimizer = torch.optim.AdamW(prior.parameters(), lr=lr, weight_decay=1e-3)
    prior.train()
    history = train(optimizer, parts_of, len(token_logits), epochs, batch_size, generator, on_epoch)
    prior.eval()
    return history


@torch.no_grad()
def decode(prior, labels, generator, steps=10, temperature=4.0, guidance=1.0, trace=None):
    """Draw tokens int64 (B, n), from all-masked in `steps` rounds.

    labels: int64 (B,), prior.n_classes for no class; temperature: weight of the Gumbel noise that
    decides which draws to keep, falling to 0; guidance: 0 ignores the class, 1 follows it, above 1
    exaggerates it; trace: a list that receives each round's mask (bool (B, n), True = keep).
    """
    shape, device = (len(labels), prior.n_tokens), labels.device
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    known = torch.zeros(shape, dtype=torch.bool, device=device)  # True = keep
    for step in range(1, steps + 1):
        logits = prior(tokens, known, labels)  # (B, n, K)
        if guidance != 1:
            free = prior(tokens, known, torch.full_like(labels, prior.n_classes))
            logits = free + guidance * (logits - free)  # Eq. (P3)
        tokens = torch.where(known, tokens, draw(logits, generator))
        p = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]  # (B, n)
        noise = temperature * (1 - step / steps) * gumbel(shape, generator).to(device)
        confidence = torch.log(p + 1e-5) + noise  # Eq. (P4)
        confidence = confidence.masked_fill(known, math.inf)  # a kept token stays kept
        rank = confidence.argsort(dim=1).argsort(dim=1)  # (B, n), 0 = least sure
        known = rank >= n_masked(step / steps, prior.n_tokens)  # the least sure are asked again
        if trace is not None:
            trace.append(known)
    return tokens
