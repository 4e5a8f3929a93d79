"""MUG (arXiv 2312.07248): time series read at two granularities at once, joined by attention.

A transformer over timestamps gives the fine view, a convolution over segments of several lengths
the coarse view; a cross-granularity transformer lets each timestamp look at the segments. The
training task is retrieval: a query made from the fine view must find its own series in the batch.

No published code is known, and the paper's equations were not at hand: this is OUR READING of the
prose in seed document 004. Eqs. (M1) to (M9) are numbered here, not in the paper. What the prose
leaves open, and our reading:

    what is ranked        the d coordinates of two vectors (it could be the batch)
    candidates            fused vectors m_j (they could be the coarse c_j)
    sub-encoders          trained jointly (they could be pre-trained or frozen)
    negatives             the other series of the batch (they could be the whole data set)
    the representation    m, the mean of the fused sequence
    Spearman              sigmoid soft ranks (the true one has no gradient)
    segment lengths, d, layers, epochs: unknown; chosen here

Reading "A", the default, takes query and candidate from one and the same input: the residual path
carries the query into its own candidate, and the task is partly solved before training. The
reading "masked-query" is OUR DEVIATION, not the paper's: the query comes from a masked copy.

    python train.py --data BasicMotions --method mug
"""

import torch
from torch import nn
from torch.nn import functional

from related.common import Estimator, check_choice
from related.simmtm import TST, Attention, geometric_mask


def soft_rank(v, temperature=0.1):
    """Differentiable ranks of the last axis of v (..., d), in [1, d]; ties share their mean rank.

    v is standardised first, so that the temperature means the same for any scale. As the
    temperature falls the values become the true ranks.
    """
    v = (v - v.mean(-1, keepdim=True)) / (v.std(-1, keepdim=True, correction=0) + 1e-6)
    above = torch.sigmoid((v[..., :, None] - v[..., None, :]) / temperature)  # (..., d, d)
    return above.sum(-1) + 0.5  # Eq. (M6); the sum counts the coordinate itself as one half


def spearman(a, b, temperature=0.1):
    """Soft Spearman correlation of each row of a (n, d) with each row of b (m, d): (n, m)."""
    a, b = soft_rank(a, temperature), soft_rank(b, temperature)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T  # Eq. (M7)


def retrieval_bce(S):
    """Binary cross-entropy of "j is i" on correlations S (B, B) in [-1, 1]; 0-d.

    The B pairs with themselves and the B (B - 1) others weigh the same; S = 0 gives ln 2.
    """
    P = ((1 + S) / 2).clamp(1e-6, 1 - 1e-6)  # a perfect correlation must not give infinity
    itself = torch.eye(len(S), dtype=torch.bool, device=S.device)
    return -(P[itself].log().mean() + (1 - P[~itself]).log().mean()) / 2  # Eq. (M8)


def info_nce(q, m, tau=0.1):
    """InfoNCE on cosine similarities, what the seed compares with: ln B when all are alike; 0-d."""
    logits = functional.normalize(q, dim=1) @ functional.normalize(m, dim=1).T / tau  # (B, B)
    return functional.cross_entropy(logits, torch.arange(len(q), device=q.device))


class CoarseEncoder(nn.Module):
    """One vector per segment of several lengths, half overlapping: (B, T, D) -> (B, S, d).

    # NOTE(paper): ShapeNet selects its shapelets with labels and has a cluster loss; here it is its
    # segment encoder only (dilated causal convolutions, maximum over time), trained end to end.
    """

    def __init__(self, T, D, d, width=32, shares=(0.1, 0.2, 0.4)):
        super().__init__()
        self.lengths = [min(T, max(2, round(share * T))) for share in shares]
        self.convs = nn.ModuleList(
            nn.Conv1d(D if i == 0 else width, width, 3, dilation=2**i) for i in range(3)
        )
        self.head = nn.Linear(width, d)

    def embed(self, segments):
        for conv in self.convs:
            left = 2 * conv.dilation[0]  # causal: padding on the past side only
            segments = functional.relu(
                conv(functional.pad(segments, (left, 0)))
            )  # (BS, width, length)
        return self.head(segments.amax(2))  # (BS, d)

    def forward(self, x):
        parts = []
        for length in self.lengths:
            cut = x.unfold(1, length, max(1, length // 2))  # (B, S_length, D, length)
            parts.append(self.embed(cut.flatten(0, 1)).reshape(len(x), cut.shape[1], -1))
        return torch.cat(parts, 1)  # Eq. (M2): (B, S, d)


class Network(nn.Module):
    """Both encoders, the fine-grained fusion and the cross-granularity transformer.

    granularity "both": fine queries look at coarse keys and values. "fine" and "coarse": the same
    transformer with the one view in both places, and no encoder for the other.
    fusion "max": the maximum over time, one query, in place of the fine-grained attention.
    cross "concat": a linear layer on [q; c] in place of the cross-granularity transformer.
    """

    def __init__(self, T, D, granularity, fusion, cross, d=64, heads=4, layers=2, dropout=0.1):
        super().__init__()
        self.fine = self.coarse = self.fuse = self.cross = None
        if granularity != "coarse":
            self.fine = TST(T, D, d, heads, layers, dropout)
            if fusion == "attention":
                self.fuse = Attention(d, heads, dropout)
            self.norm_fuse = nn.LayerNorm(d)
        if granularity != "fine":
            self.coarse = CoarseEncoder(T, D, d)
        if cross == "concat":
            self.join = nn.Linear(2 * d, d)
            return
        self.cross, self.norm_cross = Attention(d, heads, dropout), nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.norm_ffn = nn.LayerNorm(d)

    def forward(self, x):
        """x (B, T, D) -> query q and fused vector m, both (B, d)."""
        if self.coarse is not None:
            query = key = self.coarse(x)  # (B, S, d)
        if self.fine is not None:
            h = self.fine(x)  # Eq. (M1): (B, L, d)
            fused = h + self.fuse(h, h) if self.fuse else h.amax(1, keepdim=True)  # max: L = 1
            query = self.norm_fuse(fused)  # Eq. (M3): the fine-grained fusion
            key = query if self.coarse is None else key
        if self.cross is None:
            q = query.mean(1)
            return q, self.join(torch.cat([q, key.mean(1)], 1))
        h = self.norm_cross(query + self.cross(query, key))  # Eq. (M4): Q fine, K = V coarse
        h = self.norm_ffn(h + self.ffn(h))
        return query.mean(1), h.mean(1)  # Eq. (M5): q and m


class MUG(Estimator):
    """MUG as an estimator; transform gives m, the mean of the fused sequence: (N, 64).

    n_clusters, epochs, batch_size, lr, seed, device, on_epoch: see related.common.Estimator.
    reading      "A": query and candidate from the same input (the literal one); "masked-query":
                 the query from a copy with 30 % of each variate masked in runs of mean length 5
    objective    "spearman": soft Spearman and binary cross-entropy; "infonce"
    granularity  "both", or "fine" or "coarse" for the halves
    fusion       "attention" over the fine sequence, or its maximum over time: "max"
    cross        "transformer" across granularities, or "concat": both means and one linear layer

    history_ has: loss, and hit, the share of queries whose best candidate is their own series
    (1 / B for a blind guess in a batch of B).
    """

    OPTIONS = {
        "reading": ("A", "masked-query"),
        "objective": ("spearman", "infonce"),
        "granularity": ("both", "fine", "coarse"),
        "fusion": ("attention", "max"),
        "cross": ("transformer", "concat"),
    }

    def __init__(
        self,
        n_clusters=None,
        epochs=25,
        batch_size=32,
        lr=1e-3,
        seed=0,
        device="auto",
        on_epoch=None,
        reading="A",
        objective="spearman",
        granularity="both",
        fusion="attention",
        cross="transformer",
    ):
        super().__init__(n_clusters, epochs, batch_size, lr, seed, device, on_epoch)
        self.reading, self.objective, self.granularity = reading, objective, granularity
        self.fusion, self.cross = fusion, cross
        for name, known in self.OPTIONS.items():
            check_choice(known, **{name: getattr(self, name)})
        if granularity == "coarse" and fusion == "max":
            raise ValueError(
                "fusion 'max' is of the fine sequence, which granularity 'coarse' lacks"
            )
        if granularity != "both" and cross == "concat":
            raise ValueError("cross 'concat' joins two granularities; use granularity 'both'")

    def build(self, T, D):
        return Network(T, D, self.granularity, self.fusion, self.cross)

    def pair(self, net, x, generator):
        """Queries q and candidates m of x (B, T, D), both (B, d)."""
        q, m = net(x)
        if self.reading == "masked-query":
            B, T, D = x.shape
            keep = geometric_mask(B * D, T, 0.3, 5, generator).reshape(B, D, T)  # True = keep
            q, _ = net(x * keep.transpose(1, 2).to(x.device))
        return q, m

    def parts(self, net, x, generator):
        q, m = self.pair(net, x, generator)
        S = spearman(q, m)  # (B, B)
        loss = retrieval_bce(S) if self.objective == "spearman" else info_nce(q, m)  # Eq. (M9)
        itself = torch.arange(len(x), device=x.device)
        return {"loss": loss, "hit": (S.argmax(1) == itself).float().mean()}

    def embed(self, net, x):
        return net(x)[1]  # (B, d)
