"""MUG against oracles of its own: closed forms, loops, scipy."""
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from related import common, mug
from related.mug import MUG
from related.test_related import waves


def test_soft_ranks_approach_true_ranks_as_the_temperature_falls():
    v = torch.tensor([[0.3, -1.0, 2.0, 0.5, -0.2], [10.0, 30.0, 10.0, 20.0, 40.0]])
    true = torch.tensor([[3, 1, 5, 4, 2], [1.5, 4, 1.5, 3, 5]])  # ties share their mean rank
    gaps = [(mug.soft_rank(v, t) - true).abs().max().item() for t in (1, 0.3, 0.1, 0.03, 0.01)]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.2 and gaps[-1] < 1e-3
    torch.testing.assert_close(mug.soft_rank(v, 0.1), mug.soft_rank(7 * v + 3, 0.1), atol=1e-3, rtol=0)


def test_soft_spearman_approaches_scipys():
    stats = pytest.importorskip("scipy.stats")
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 40, generator=g), torch.randn(4, 40, generator=g)
    b[0] = a[1].exp()  # the same order
    b[1] = -a[2]
    S = mug.spearman(a, b, temperature=1e-4)
    for i, j in itertools.product(range(3), range(4)):
        want = stats.spearmanr(a[i].numpy(), b[j].numpy())[0]
        assert S[i, j].item() == pytest.approx(want, abs=2e-3)
    assert S[1, 0].item() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(mug.soft_rank(a, 1e-4), stats.rankdata(a.numpy(), axis=1), atol=0.05)


def test_retrieval_losses_by_hand():
    assert mug.retrieval_bce(torch.zeros(5, 5)).item() == pytest.approx(math.log(2))
    assert mug.retrieval_bce(2 * torch.eye(4) - 1).item() == pytest.approx(0, abs=1e-5)
    want = -(math.log(0.75) + math.log(0.5)) / 2  # 4 pairs and 12 others weigh the same
    assert mug.retrieval_bce(torch.eye(4) / 2).item() == pytest.approx(want)
    assert mug.retrieval_bce(1 - 2 * torch.eye(3)).item() == pytest.approx(math.log(1e6), rel=1e-2)
    S = torch.tensor([[0.6, -0.2], [0.0, 1.0]])  # P = [[.8, .4], [.5, 1]]
    want = -(math.log(0.8) / 2 + (math.log(0.6) + math.log(0.5)) / 2) / 2
    assert mug.retrieval_bce(S).item() == pytest.approx(want, abs=1e-5)
    assert mug.info_nce(torch.ones(6, 3), torch.ones(6, 3)).item() == pytest.approx(math.log(6))
    want = math.log(1 + 3 * math.exp(-1 / 0.5))
    assert mug.info_nce(torch.eye(4), 5 * torch.eye(4), tau=0.5).item() == pytest.approx(want, rel=1e-4)


def test_coarse_encoder_reads_each_segment_alone_and_never_ahead():
    with common.seeded(0, "cpu"):
        net, x = mug.CoarseEncoder(40, 2, 16), torch.randn(3, 40, 2)
    out, rows = net(x), []
    for length in (4, 8, 16):
        for start in range(0, 40 - length + 1, length // 2):
            rows.append(net.embed(x[:, start:start + length].transpose(1, 2)))
    torch.testing.assert_close(out, torch.stack(rows, 1))
    net.head = torch.nn.Identity()
    whole = x.transpose(1, 2)
    # A maximum over causal outputs can only rise as the segment grows at its end.
    assert (net.embed(whole[:, :, :25]) <= net.embed(whole) + 1e-6).all()


def test_fine_encoder_reads_every_step_up_to_its_limit():
    for T, L, patch in [(128, 128, 1), (129, 65, 2), (300, 100, 3)]:
        net = mug.FineEncoder(T, 2, 16, 4, 1, 0.0)
        assert net(torch.randn(2, T, 2)).shape == (2, L, 16) and net.patch == patch


def test_cross_transformer_takes_queries_from_fine_and_keys_from_coarse():
    net, seen = mug.Network(40, 2, "both").eval(), []
    net.cross.register_forward_hook(lambda module, given, out: seen.append(given))
    q, m = net(torch.randn(3, 40, 2))
    query, key = seen[0]
    segments = sum(len(range(0, 40 - n + 1, n // 2)) for n in (4, 8, 16))
    assert query.shape == (3, 40, 64) and key.shape == (3, segments, 64)
    torch.testing.assert_close(q, query.mean(1))
    assert q.shape == m.shape == (3, 64)


def test_halves_have_no_network_for_the_other_half():
    assert mug.Network(20, 1, "fine").coarse is None and mug.Network(20, 1, "coarse").fine is None


def test_masked_query_sees_less_than_the_literal_reading():
    x = torch.randn(5, 40, 2)
    literal, masked = MUG(), MUG(reading="masked-query")
    net = literal.build(40, 2).eval()
    q, m = literal._pair(net, x, torch.Generator().manual_seed(0))
    q2, m2 = masked._pair(net, x, torch.Generator().manual_seed(0))
    assert torch.equal(m, m2) and not torch.allclose(q, q2)


def test_masked_query_hides_three_tenths_in_runs_of_the_query_alone():
    model, seen, x = MUG(reading="masked-query"), [], torch.rand(4, 600, 3) + 1  # no zero of its own
    model._pair(lambda given: seen.append(given) or (None, None), x, torch.Generator().manual_seed(0))
    clean, query = seen
    hidden = query == 0
    assert torch.equal(clean, x) and torch.equal(query[~hidden], x[~hidden])
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.04)
    runs = [len(list(run)) for row in hidden.transpose(1, 2).flatten(0, 1).tolist()
            for masked, run in itertools.groupby(row) if masked]
    assert np.mean(runs) == pytest.approx(5, rel=0.15)


def test_each_objective_is_its_own_loss():
    q, m = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    want = {"spearman": mug.retrieval_bce(mug.spearman(q, m)), "infonce": mug.info_nce(q, m)}
    for objective, value in want.items():
        parts = MUG(objective=objective)._parts(lambda x: (q, m), torch.zeros(5, 4, 1), None)
        assert torch.equal(parts["loss"], value)
    assert want["spearman"] != want["infonce"]


def test_mug_learns_to_retrieve_from_masked_queries():
    X = waves(24, 30, 2)
    make = dict(reading="masked-query", seed=1)
    before = MUG(epochs=0, **make).fit(X).evaluate(X)
    after = MUG(epochs=15, **make).fit(X).evaluate(X)
    assert after["loss"] < before["loss"] and after["hit"] > before["hit"]
