"""MUG against oracles of its own: closed forms, loops, scipy."""

import itertools
import math

import numpy as np
import pytest
import torch

from related import common, mug
from related.mug import MUG
from related.simmtm import SimMTM
from related.test_related import rng, waves

SHAPES = [{}, {"granularity": "fine"}, {"granularity": "coarse"}, {"fusion": "max"},
          {"cross": "concat"}, {"fusion": "max", "cross": "concat"}]  # fmt: skip
VARIANTS = [{"reading": r, "objective": o, **shape} for r in MUG.OPTIONS["reading"]
            for o in MUG.OPTIONS["objective"] for shape in SHAPES]  # fmt: skip


def network(T=40, D=2, **options):
    return MUG(**options).build(T, D).eval()


def test_soft_spearman_approaches_scipys():
    stats = pytest.importorskip("scipy.stats")
    g = rng()
    a, b = torch.randn(3, 40, generator=g), torch.randn(4, 40, generator=g)
    b[0] = a[1].exp()  # the same order
    b[1] = -a[2]
    S = mug.spearman(a, b, temperature=1e-4)
    for i, j in itertools.product(range(3), range(4)):
        want = stats.spearmanr(a[i].numpy(), b[j].numpy())[0]
        assert S[i, j].item() == pytest.approx(want, abs=2e-3)
    assert S[1, 0].item() == pytest.approx(1, abs=1e-3)


def test_retrieval_losses_by_hand():
    assert mug.retrieval_bce(torch.zeros(5, 5)).item() == pytest.approx(math.log(2))
    assert mug.retrieval_bce(2 * torch.eye(4) - 1).item() == pytest.approx(0, abs=1e-5)
    want = -(math.log(0.75) + math.log(0.5)) / 2  # 4 pairs and 12 others weigh the same
    assert mug.retrieval_bce(torch.eye(4) / 2).item() == pytest.approx(want)
    assert mug.retrieval_bce(1 - 2 * torch.eye(3)).item() == pytest.approx(math.log(1e6), rel=1e-2)
    assert mug.info_nce(torch.ones(6, 3), torch.ones(6, 3)).item() == pytest.approx(math.log(6))
    want = math.log(1 + 3 * math.exp(-1 / 0.5))
    got = mug.info_nce(torch.eye(4), 5 * torch.eye(4), tau=0.5).item()
    assert got == pytest.approx(want, rel=1e-4)


def test_coarse_encoder_reads_each_segment_alone_and_never_ahead():
    with common.seeded(0, "cpu"):
        net, x = mug.CoarseEncoder(40, 2, 16), torch.randn(3, 40, 2)
    out, rows = net(x), []
    for length in (4, 8, 16):
        for start in range(0, 40 - length + 1, length // 2):
            rows.append(net.embed(x[:, start : start + length].transpose(1, 2)))
    torch.testing.assert_close(out, torch.stack(rows, 1))
    net.head = torch.nn.Identity()
    whole = x.transpose(1, 2)
    # A maximum over causal outputs can only rise as the segment grows at its end.
    assert (net.embed(whole[:, :, :25]) <= net.embed(whole) + 1e-6).all()


@pytest.mark.parametrize("fusion, queries", [("attention", 40), ("max", 1)])
def test_cross_transformer_takes_queries_from_fine_and_keys_from_coarse(fusion, queries):
    net, seen, x = network(fusion=fusion), [], torch.randn(3, 40, 2)
    net.cross.register_forward_hook(lambda module, given, out: seen.append(given))
    q, _ = net(x)
    query, key = seen[0]
    segments = sum(len(range(0, 40 - n + 1, n // 2)) for n in (4, 8, 16))
    assert query.shape == (3, queries, 64) and key.shape == (3, segments, 64)
    torch.testing.assert_close(q, query.mean(1))
    if fusion == "max":
        torch.testing.assert_close(q, net.norm_fuse(net.fine(x).max(1).values))


def test_concatenation_is_one_layer_on_both_means():
    net, x = network(cross="concat"), torch.randn(3, 40, 2)
    q, m = net(x)
    assert net.cross is None and m.shape == (3, 64)
    both = torch.cat([q, net.coarse(x).mean(1)], 1)
    torch.testing.assert_close(m, both @ net.join.weight.T + net.join.bias)


def test_masked_query_hides_three_tenths_in_runs_of_the_query_alone():
    model, seen = MUG(reading="masked-query"), []
    x = torch.rand(4, 600, 3) + 1  # no zero of its own
    model.pair(lambda given: seen.append(given) or (None, None), x, rng())
    clean, query = seen
    hidden = query == 0
    assert torch.equal(clean, x) and torch.equal(query[~hidden], x[~hidden])
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.04)
    rows = hidden.transpose(1, 2).flatten(0, 1).tolist()
    runs = [len(list(run)) for row in rows for masked, run in itertools.groupby(row) if masked]
    assert np.mean(runs) == pytest.approx(5, rel=0.15)
    seen.clear()
    MUG().pair(lambda given: seen.append(given) or (None, None), x, rng())
    assert len(seen) == 1 and torch.equal(seen[0], x)  # reading A: one input for both


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"fusion": "max"}, {"cross": "concat"}])
def test_mug_learns_to_retrieve_from_masked_queries(change):
    X = waves(24, 30, 2)
    make = dict(reading="masked-query", seed=1, **change)
    before = MUG(epochs=0, **make).fit(X).evaluate(X)
    after = MUG(epochs=15, **make).fit(X).evaluate(X)
    assert after["loss"] < before["loss"] and after["hit"] > before["hit"]


def name(model):
    return "-".join(str(v) for k, v in vars(model).items() if k in ("M", "encoder", *MUG.OPTIONS))


MODELS = [SimMTM(), SimMTM(M=1), SimMTM(encoder="transformer"), *(MUG(**v) for v in VARIANTS)]


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_every_parameter_gets_a_gradient(model):
    with common.seeded(0, "cpu"):
        net = model.build(30, 2).train()
        loss = model.parts(net, torch.randn(6, 30, 2), rng())["loss"]
        loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    for what, p in net.named_parameters():
        # A bias straight before a batch mean is taken off has no effect.
        assert p.grad is not None and (p.grad.abs().max() > 0 or what.endswith("bias")), what
