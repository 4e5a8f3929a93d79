"""Tests of tsne.py: loop twins, definitions, and scikit-learn where it is there."""

import math

import pytest
import torch

from tsne import conditionals, principal_plane, squared_distances, tsne


def blobs(n=40, d=10, groups=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centre = 8 * torch.randn(groups, d, generator=generator)
    X = torch.cat([c + torch.randn(n, d, generator=generator) for c in centre])
    return X, torch.arange(groups).repeat_interleave(n)


def test_each_row_has_the_perplexity():
    X, _ = blobs()
    for scale, shift in ((1, 0), (1e-4, 0), (1e5, 0), (1, 1e6)):
        D = squared_distances(X.double() * scale + shift)
        for perplexity in (2, 100):
            P = conditionals(D, perplexity)
            assert P.diagonal().abs().max() == 0
            torch.testing.assert_close(P.sum(1), torch.ones(120, dtype=P.dtype))
            reached = torch.tensor([math.exp(-sum(p * math.log(p) for p in row if p)) for row in P[::17].tolist()])
            torch.testing.assert_close(reached, torch.full_like(reached, perplexity), rtol=1e-4, atol=0)


def test_squared_distances_by_loop():
    X = blobs(n=4)[0].double()
    D = squared_distances(X)
    for i in range(len(X)):
        for j in range(len(X)):
            assert D[i, j].item() == pytest.approx(sum(v * v for v in (X[i] - X[j]).tolist()), abs=1e-10)
    torch.testing.assert_close(squared_distances(X + 1e7), D, rtol=1e-6, atol=1e-6)   # no cancellation far away


def divergence(X, Y, perplexity):
    """KL(P || Q), van der Maaten and Hinton's Eq. 2, from its definition."""
    P = conditionals(squared_distances(X.double()), perplexity)
    P = (P + P.T) / (2 * len(P))
    kernel = 1 / (1 + torch.cdist(Y, Y) ** 2)
    kernel.fill_diagonal_(0)
    off = P > 0
    return (P[off] * (P[off] / (kernel / kernel.sum())[off]).log()).sum().item()


def test_tsne_is_as_good_as_sklearns():
    manifold = pytest.importorskip("sklearn.manifold")
    X = torch.as_tensor(pytest.importorskip("sklearn.datasets").load_digits().data[:180])
    theirs = torch.as_tensor(manifold.TSNE(method="exact", perplexity=15, random_state=0, init="pca",
                                           max_iter=750).fit_transform(X.numpy())).double()
    ours = tsne(X, perplexity=15, steps=750)
    trust = [manifold.trustworthiness(X.numpy(), Y.numpy(), n_neighbors=10) for Y in (ours, theirs)]
    assert trust[0] > 0.95 and trust[0] > trust[1] - 0.01
    assert divergence(X, ours, 15) < 1.05 * divergence(X, theirs, 15)


def test_tsne_repeats_and_leaves_everything_as_it_was():
    X, label = blobs()
    before, state = X.clone(), torch.random.get_rng_state()
    Y = tsne(X, perplexity=15, steps=500, seed=3)
    assert Y.shape == (120, 2) and torch.isfinite(Y).all() and torch.equal(X, before)
    assert torch.equal(Y, tsne(X, perplexity=15, steps=500, seed=3))
    assert not torch.equal(Y, tsne(X, perplexity=15, steps=500, seed=4))
    assert torch.equal(state, torch.random.get_rng_state())
    D = squared_distances(Y) + torch.eye(120) * 1e9
    assert (label[D.argmin(1)] == label).all()                     # every nearest neighbour is of its own blob
    assert divergence(X, Y, 15) < 0.65 * divergence(X, principal_plane(X.double()), 15)


def test_tsne_edges():
    assert torch.isfinite(tsne(torch.zeros(8, 3), perplexity=2, steps=20)).all()       # all points equal
    assert torch.isfinite(tsne(torch.randn(8, 1, generator=torch.Generator().manual_seed(0)), 2, steps=20)).all()
    for X, perplexity in ((torch.zeros(8, 3), 7), (torch.zeros(8, 3), 0.5), (torch.full((8, 3), math.nan), 2),
                          (torch.zeros(8), 2)):
        with pytest.raises(ValueError, match="must be"):
            tsne(X, perplexity, steps=1)
