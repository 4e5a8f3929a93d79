"""What each task is checked against: numbers by hand, and plain loops over single entries.

Nothing here calls the function that it checks, nor the reference's version of it. A check takes the
student's function and raises `Wrong`, with the first wrong value, or returns.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import tensor

INF = math.inf


class Wrong(Exception):
    """One line for the student."""


class Check(NamedTuple):
    assignment: int
    points: int
    check: object


CHECKS = {}  # function -> Check


def task(function, assignment, points):
    def add(check):
        CHECKS[function] = Check(assignment, points, check)
        return check

    return add


def same(what, got, want, tol=1e-4):
    """`got` must be `want`, in shape, in kind and in value."""
    want = torch.as_tensor(want)
    if got is None:
        raise Wrong(f"{what}: nothing is returned")
    try:
        got = torch.as_tensor(got).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} is {str(got)[:60]!r}; numbers are expected") from None
    if got.shape != want.shape:
        raise Wrong(f"{what} has shape {tuple(got.shape)}, should be {tuple(want.shape)}")
    for kind in (torch.bool, torch.int64):
        if (got.dtype == kind) != (want.dtype == kind) and want.ndim:
            raise Wrong(f"{what} is {got.dtype}, should be {want.dtype}".replace("torch.", ""))
    good = torch.isclose(got.double(), want.double(), tol, tol, equal_nan=False)
    if not good.all():
        at = (~good).nonzero()[0].tolist()
        place = f"{at}" if at else ""
        raise Wrong(f"{what}{place} is {show(got[tuple(at)])}, should be {show(want[tuple(at)])}")


def show(number):
    return f"{number.item():.4g}" if number.is_floating_point() else str(number.item())


def pure(function, *args):
    """The function's value, its arguments being left as they were."""
    before = [a.clone() if torch.is_tensor(a) else a for a in args]
    value = function(*args)
    for n, (a, b) in enumerate(zip(args, before, strict=True), 1):
        if torch.is_tensor(a) and not torch.equal(a, b):
            raise Wrong(f"argument {n} is changed in place; work on a copy")
    return value


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everywhere(*shape):  # observed
    return torch.ones(shape, dtype=torch.bool)


def each(*sizes):
    return itertools.product(*map(range, sizes))


# ---- assignment 1: the losses


@task("intra_loss", 1, 2)
def intra_loss(f):
    X, X_v = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[[1.0, 0], [3, 4]], [[0, 2], [3, 2]]])
    same("the loss of two views, nothing missing,", pure(f, X, X_v, everywhere(2, 2)), 9 / 4)
    seen = tensor([[True, False], [True, True]])
    same("the loss with X[0, 1] missing", pure(f, X, X_v, seen), (0 + 1 + 4) / 3)
    same("the loss with nothing observed", pure(f, X, X_v, ~seen & seen), 0.0)
    X, X_v = rand(5, 3), rand(4, 5, 3, seed=1)
    want = sum((float(X[t, d]) - float(X_v[v, t, d])) ** 2 for v, t, d in each(4, 5, 3)) / 15
    same("the loss of four views", pure(f, X, X_v, everywhere(5, 3)), want)


@task("inter_loss", 1, 2)
def inter_loss(f):
    F, pairs = rand(3, 4, 2), [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    factors = tensor([1.0, 2, 3, 4, 5, 6])[:, None, None]
    for some in ([(1, 0)], pairs[:2], pairs):
        want = 0.0
        for (i, j), factor in zip(some, factors.flatten().tolist(), strict=False):
            entries = [(float(F[j, n, c]) - factor * float(F[i, n, c])) ** 2 for n, c in each(4, 2)]
            want += sum(entries) / 8
        mine = factors[: len(some)]
        got = pure(f, F, lambda x, mine=mine: mine * x, some)
        same(f"the loss over the pairs {some}", got, want)


@task("pair_loss", 1, 1)
def pair_loss(f):
    F_j, F_ij = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[1.0, 0.0], [3.0, 1.0]])
    same("the loss of ((1, 2), (3, 4)) and ((1, 0), (3, 1))", pure(f, F_j, F_ij), 13 / 4)
    same("the loss of a view with itself", pure(f, F_j, F_j), 0.0)


@task("contrast", 1, 2)
def contrast(f):
    plus, minus = tensor([1.0, 3.0]).log(), tensor([3.0, 1.0]).log()
    want = (math.log(4) + math.log(4 / 3)) / 2
    same("the loss of L+ = 1, 3 and L- = 3, 1", pure(f, plus, minus), want)
    plus, minus = tensor([0.0, -INF]), tensor([0.0, 0.0])
    same("the loss where the second anchor has no positive pair", pure(f, plus, minus), math.log(2))
    same("the loss where no anchor has one", pure(f, tensor([-INF, -INF]), minus), 0.0)
    same("the loss of log L+ = log L- = 1000", pure(f, tensor([1e3]), tensor([1e3])), math.log(2))
    same("the loss without negative pairs", pure(f, tensor([2.0]), tensor([-INF])), 0.0)


@task("pair_sum", 1, 2)
def pair_sum(f):
    sim = tensor([[1.0, 0.5, -0.5], [0.2, 1.0, 0.4]])
    pairs = tensor([[False, True, True], [True, False, False]])
    want = [math.log(math.exp(0.5 / 0.5) + math.exp(-0.5 / 0.5)), 0.2 / 0.5]
    same("log L with tau = .5", pure(f, sim, pairs, 0.5), want)
    same("log L of an anchor without pairs", pure(f, sim, pairs & ~pairs, 0.5), [-INF, -INF])
    same("log L with tau = .001", pure(f, sim, pairs, 1e-3), [500.0, 200.0])


@task("cosine", 1, 1)
def cosine(f):
    E, anchors = tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]]), tensor([[1.0, 0.0], [0.0, 5.0]])
    want = [[0.6, 0.0, -1.0], [0.8, 1.0, 0.0]]
    same("sim", pure(f, E, anchors), want)


@task("total_loss", 1, 1)
def total_loss(f):
    got = f(tensor(1.0), tensor(2.0), tensor(4.0), 0.5, 0.25)
    same("1 + .5 * 2 + .25 * 4", got, 3.0)
    same("1 + 0 * 2 + 1 * 4", f(tensor(1.0), tensor(2.0), tensor(4.0), 0.0, 1.0), 5.0)


# ---- assignment 2: the mask


@task("single_variate_embedding", 2, 3)
def single_variate_embedding(f):
    B, D, T, h = 2, 3, 7, 2
    x, W1, b1 = rand(B, D, T), rand(D * h, 1, 3, seed=1), rand(D * h, seed=2)
    W2, b2 = rand(D * h, h, 3, seed=3), rand(D * h, seed=4)
    seen = rand(B, D, T, seed=5) > -0.5
    for name, observed in (("Z", everywhere(B, D, T)), ("with missing entries, Z", seen)):
        x_o = x * observed
        Z, want = torch.zeros(B, D, T, h), torch.zeros(B, D, T, h)
        for b, d, t, c in each(B, D, T, h):
            at = [(k, t + k - 1) for k in range(3) if 0 <= t + k - 1 < T]
            value = b1[d * h + c] + sum(W1[d * h + c, 0, k] * x_o[b, d, s] for k, s in at)
            Z[b, d, t, c] = max(0.0, float(value)) * bool(observed[b, d, t])
        for b, d, t, c in each(B, D, T, h):
            at = [(k, t + 2 * k - 2) for k in range(3) if 0 <= t + 2 * k - 2 < T]
            value = sum(W2[d * h + c, e, k] * Z[b, d, s, e] for k, s in at for e in range(h))
            want[b, d, t, c] = max(0.0, float(b2[d * h + c] + value))
        same(name, pure(f, x_o, W1, b1, W2, b2, observed), want)


@task("attention", 2, 3)
def attention(f):
    B, D, T, n, h = 2, 2, 4, 3, 4
    Q, K, Z = rand(B, D, T, h), rand(B, D, n, h, seed=1), rand(B, D, n, h, seed=2)
    every, seen = everywhere(B, D, n), everywhere(B, D, n)
    seen[0, 0, 1] = seen[1, 1, 0] = False
    none = seen.clone()
    none[1, 0] = False  # a series without any observed key attends to all
    cases = (("S", every), ("with missing keys, S", seen), ("with a series missing, S", none))
    for name, observed in cases:
        want = torch.zeros(B, D, T, h)
        for b, d, t in each(B, D, T):
            keys = [k for k in range(n) if observed[b, d, k]] or range(n)
            score = {k: math.exp(float(Q[b, d, t] @ K[b, d, k]) / math.sqrt(h)) for k in keys}
            want[b, d, t] = sum(score[k] * Z[b, d, k] for k in keys) / sum(score.values())
        same(name, pure(f, Q, K, Z, observed), want)


@task("threshold", 2, 2)
def threshold(f):
    S, every = tensor([[[0.2, 0.5, 0.7], [0.6, 0.4, 0.1]]]), everywhere(2, 2, 3)
    want = tensor([[[False, True, True], [True, False, False]]])
    same("for S = .2 .5 .7 | .6 .4 .1 and epsilon = .5, M", pure(f, S, every[:1], 0.5), want)
    seen = tensor([[[True, True, False], [True, True, True]]])
    name = "for the same with .7 missing, M"
    same(name, pure(f, S, seen, 0.5), tensor([[[False, True, False], [True, False, False]]]))
    name = "where no entry reaches epsilon = .9, M"
    same(name, pure(f, S, every[:1], 0.9), tensor([[[False, False, True], [False] * 3]]))
    name = "where no entry reaches epsilon = .9 and the best one is missing, M"
    same(name, pure(f, S, seen, 0.9), tensor([[[False] * 3, [True, False, False]]]))
    both = torch.cat([S, S / 10])  # the rule is for each sample, not for the batch
    want = torch.cat([want, tensor([[[False, False, True], [False] * 3]])])
    name = "for two samples, the second without an entry that passes, M"
    same(name, pure(f, both, every, 0.5), want)
    same("for epsilon = 0, M", pure(f, both, every, 0.0), every)


@task("views", 2, 1)
def views(f):
    x, calls = rand(2, 3, 5), []

    def encoder(k):
        return lambda x: calls.append(k) or k * x[:, :2]

    same("F", pure(f, [encoder(1.0), encoder(3.0)], x), torch.stack([x[:, :2], 3 * x[:, :2]]))
    if calls != [1.0, 3.0]:
        raise Wrong(f"the encoders are called in the order {calls}; each once, in turn, is right")


# ---- assignment 3: k-means and the metrics


@task("e_step", 3, 2)
def e_step(f):
    x = tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [5.0, 5.0]])
    C = tensor([[[0.0, 0.0], [2.0, 0.0]], [[5.0, 5.0], [0.0, 1.0]]])
    labels, least = two(pure(f, x, C))
    same("labels (of a tie the lower)", labels, [[0, 0, 1, 1], [1, 1, 1, 0]])
    same("minima", least, [[0.0, 0.0, -2.0, -8.0], [0.5, 0.5, 0.5, -25.0]])
    x, C = rand(30, 3), rand(2, 5, 3, seed=1)
    labels, least = two(pure(f, x, C))
    for r, n in each(2, 30):
        half = [sum(float(x[n, i] - C[r, j, i]) ** 2 for i in range(3)) / 2 for j in range(5)]
        best = half.index(min(half))
        same(f"labels[{r}, {n}]", labels[r, n], best)
        same(f"minima[{r}, {n}]", least[r, n], half[best] - float(x[n] @ x[n]) / 2)


@task("m_step", 3, 3)
def m_step(f):
    x = tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 9.0]])
    before, labels = tensor([[0, 0, 0, 0], [0, 1, 1, 2]]), tensor([[0, 0, 1, 1], [0, 1, 2, 2]])
    sums = torch.zeros(2, 3, 2, dtype=torch.float64)
    for r, n in each(2, 4):
        sums[r, before[r, n]] += x[n]
    C, sizes = two(f(x, labels, before, sums))
    same("centres (0 without points)", C, [[[1.0, 2], [5, 7], [0, 0]], [[0, 1], [2, 3], [5, 7]]])
    same("sizes", sizes, [[2, 2, 0], [1, 1, 2]])
    want = [[[2.0, 4], [10, 14], [0, 0]], [[0, 1], [2, 3], [10, 14]]]
    same("the sums, which are to be changed in place,", sums, want)
    if C.dtype != x.dtype:
        raise Wrong(f"centres are {C.dtype}, should be {x.dtype} as x".replace("torch.", ""))


def two(value):
    if not isinstance(value, tuple) or len(value) != 2:
        raise Wrong("two tensors are to be returned")
    return value


@task("bidding_round", 3, 4)
def bidding_round(f):
    def play(name, benefit, price, col, owner, epsilon, want):
        state = [np.array(v) for v in (price, col, owner)]
        f(np.array(benefit), *state, epsilon)
        for what, got, right in zip(("price", "col", "owner"), state, want, strict=True):
            same(f"{name}, {what}", got, np.array(right))

    play("one row and one column", [[5]], [2], [-1], [-1], 1, ([3], [0], [0]))
    both = [[10, 7], [9, 3]]
    play("two rows bid for one column", both, [0, 0], [-1, -1], [-1, -1], 1,
         ([7, 0], [-1, 0], [1, -1]))  # fmt: skip
    play("the row that lost bids again", both, [7, 0], [-1, 0], [1, -1], 1,
         ([7, 5], [1, 0], [1, 0]))  # fmt: skip
    play("a row is outbid", [[10, 2], [9, 3]], [1, 0], [-1, 0], [1, -1], 2,
         ([10, 0], [0, -1], [0, -1]))  # fmt: skip
    play("all rows have a column", both, [7, 5], [1, 0], [1, 0], 1, ([7, 5], [1, 0], [1, 0]))
    rng = np.random.default_rng(0)
    for trial in range(20):
        table = rng.integers(0, 9, size=(3, 4))
        benefit, price = table * 5, np.zeros(4, dtype=np.int64)
        col, owner = np.full(3, -1), np.full(4, -1)
        for _ in range(500):
            f(benefit, price, col, owner, 1)
            if (col >= 0).all():
                break
        orders = itertools.permutations(range(4), 3)
        best = max(sum(table[i, order[i]] for i in range(3)) for order in orders)
        got = sum(table[i, j] for i, j in enumerate(col) if j >= 0)
        same(f"rounds to the end on table {trial}, the sum of the match", int(got), int(best))


def matches(y, c):
    """All one-to-one matches of classes and clusters, each as a list of pairs of names."""
    names, groups = sorted(set(y)), sorted(set(c))
    size = max(len(names), len(groups))
    groups = groups + [None] * (size - len(groups))
    for order in itertools.permutations(groups, len(names)):
        yield list(zip(names, order, strict=True))


def best_of(y, c):
    """(ACC, F1) of the match with the highest ACC and then F1, by trying them all."""
    found = []
    for match in matches(y, c):
        right, total = 0, 0.0
        for a, b in match:
            both = sum(u == a and v == b for u, v in zip(y, c, strict=True))
            right += both
            total += 2 * both / (list(y).count(a) + list(c).count(b))
        found.append((right / len(y), total / len(match)))
    return max(found)


def labellings():
    """Names for the help, labels, clusters: some by hand, then random ones."""
    yield "19 and 9 samples in two clusters", [0] * 19 + [1] * 9, [0] * 10 + [1] * 9 + [0] * 9
    yield "labels that are strings", ["b", "b", "a", "c"], [5, 5, 0, 0]
    y = [1, 1, 1, 2, 2, 2, 2, 1, 2, 2, 0, 2]  # found by search: each greedy match is wrong here
    yield "12 samples, matched with care", y, [2, 2, 2, 2, 2, 2, 0, 1, 2, 0, 2, 1]
    rng = np.random.default_rng(1)
    for r, c in ((2, 4), (4, 2), (3, 3), (4, 4), (3, 5)):
        y, z = rng.integers(r, size=18).tolist(), rng.integers(c, size=18).tolist()
        yield f"random labels of {r} classes and {c} clusters", y, z


@task("accuracy", 3, 2)
def accuracy(f):
    y, c = [0] * 19 + [1] * 9, [0] * 10 + [1] * 9 + [0] * 9
    same("ACC of 10, 9, 0 and 9 samples in a table", f(y, c), 18 / 28)
    for name, y, c in labellings():
        same(f"ACC, {name},", f(y, c), best_of(y, c)[0])


@task("f1", 3, 3)
def f1(f):
    same("F1 of a a b b in clusters 0 0 0 1", f(list("aabb"), [0, 0, 0, 1]), (4 / 5 + 2 / 3) / 2)
    for name, y, c in labellings():
        same(f"F1, {name},", f(y, c), best_of(y, c)[1])


@task("nmi", 3, 2)
def nmi(f):
    same("NMI of equal labellings", f([0, 0, 1, 1], ["x", "x", "y", "y"]), 1.0)
    same("NMI of independent labellings", f([0, 0, 1, 1], [0, 1, 0, 1]), 0.0)
    same("NMI of one class and one cluster", f([3, 3], [1, 1]), 1.0)
    same("NMI of two classes and one cluster", f([0, 1], [1, 1]), 0.0)
    for name, y, c in labellings():
        n, information, entropies = len(y), 0.0, 0.0
        for a, b in itertools.product(set(y), set(c)):
            both = sum(u == a and v == b for u, v in zip(y, c, strict=True)) / n
            if both:
                information += both * math.log(both * n * n / (y.count(a) * c.count(b)))
        for labels in (y, c):
            shares = [labels.count(a) / n for a in set(labels)]
            entropies -= sum(p * math.log(p) for p in shares)
        same(f"NMI, {name},", f(y, c), 2 * information / entropies)


@task("ari", 3, 2)
def ari(f):
    same("ARI of equal labellings", f([0, 0, 1, 1], ["x", "x", "y", "y"]), 1.0)
    same("ARI of one class and one cluster", f([3, 3], [1, 1]), 1.0)
    same("ARI of 0 0 1 1 and 0 1 0 1", f([0, 0, 1, 1], [0, 1, 0, 1]), -0.5)
    for name, y, c in labellings():
        pairs = list(itertools.combinations(range(len(y)), 2))
        in_y, in_c = ([v[i] == v[j] for i, j in pairs] for v in (y, c))
        both = sum(a and b for a, b in zip(in_y, in_c, strict=True))
        chance = sum(in_y) * sum(in_c) / len(pairs)
        top = (sum(in_y) + sum(in_c)) / 2
        same(f"ARI, {name},", f(y, c), (both - chance) / (top - chance))
    n = 200_000  # classes alternate, clusters are halves: 4 groups of n / 4; products pass 2^63
    many = np.arange(n)
    both, one, all_pairs = (k * math.comb(m, 2) for k, m in ((4, n // 4), (2, n // 2), (1, n)))
    want = (both - one * one / all_pairs) / (one - one * one / all_pairs)
    same("ARI of 200,000 samples", f(many % 2, many // (n // 2)), want, 1e-6)


# ---- assignment 4: the whole loop


@task("fuse", 4, 2)
def fuse(f):
    V, B, q, p = 2, 3, 2, 3
    pooled, shift, W = rand(V, B, q), rand(V * q, seed=1), rand(V * q, p, seed=2)
    scale = tensor([1.0, 2.0, 4.0, 0.5])
    want = torch.zeros(B, p)
    for b in range(B):
        row = [float(pooled[v, b, c]) for v, c in each(V, q)]
        row = [(row[k] - float(shift[k])) / float(scale[k]) for k in range(V * q)]
        row = [sum(row[k] * float(W[k, m]) for k in range(V * q)) for m in range(p)]
        want[b] = tensor([r / math.sqrt(sum(s * s for s in row)) for r in row])
    same("F", pure(f, pooled, shift, scale, W), want)


@task("cluster", 4, 3)
def cluster(f):
    where = tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    group = tensor([0] * 19 + [1] * 9 + [2] * 5)
    E = where[group] + 0.1 * rand(33, 2)
    rng = torch.Generator().manual_seed(0)
    labels, centers = two(pure(f, E, 3, 5, rng))
    if labels.shape != (33,) or labels.dtype != torch.int64:
        raise Wrong(f"labels are {labels.dtype} of {tuple(labels.shape)}, should be int64 of (33,)")
    same("whether the three groups are found", together(labels), together(group))
    before = tensor([0] * 10 + [1] * 9 + [0] * 9 + [2] * 5)  # best: group 0 -> 1, group 1 -> 0
    labels, new = two(pure(f, E, 3, 5, rng, before))
    same("labels, numbered as far as may be like those before,", labels, tensor([1, 0, 2])[group])
    for j in range(3):
        same(f"centre {j}, in the new numbering,", new[j], E[labels == j].mean(0), 1e-3)
    turned = tensor([2, 0, 1])[group]
    same("labels that were all right before", f(E, 3, 5, rng, turned)[0], turned)


def together(labels):
    return labels[:, None] == labels


@task("EMTC._train", 4, 8)
def loop(f):
    import emtc

    emtc.EMTC._train = f  # `fit` calls it
    X, cpu = series(), {"device": "cpu", "width": 4, "n_starts": 1, "n_init": 2, "epsilon": 0.3}
    calls, rng = [], torch.get_rng_state()
    model = emtc.EMTC(2, epochs=2, **cpu)
    model.fit(X, on_epoch=lambda m, r: calls.append((m is model, r["epoch"], len(m.labels_))))
    epochs = [r["epoch"] for r in model.history_]
    if epochs != [1, 2]:
        raise Wrong(f"history_ has the epochs {epochs} for epochs=2, should be [1, 2]")
    if calls != [(True, 1, 12), (True, 2, 12)]:
        raise Wrong("on_epoch should be called with the model and the record after each epoch")
    if not torch.equal(rng, torch.get_rng_state()):
        raise Wrong("torch's global random numbers are used; the model has its own, self._rng")
    for r in model.history_:
        want = r["contra"] + 0.1 * (r["intra"] + r["inter"])
        same(f"total of epoch {r['epoch']}", r["total"], want)
    start = emtc.EMTC(2, epochs=0, **cpu).fit(X)
    if start.history_ or len(start.labels_) != 12:
        raise Wrong("with epochs=0 there should be labels and an empty history_")
    trained = dict(model.net_.named_parameters())
    for name, w in start.net_.named_parameters():
        if torch.equal(w, trained[name]):
            raise Wrong(f"the weights {name} are not trained")
    dropped = emtc.EMTC(2, epochs=1, drop=("intra", "inter"), **cpu).fit(X).history_[0]
    same("total without intra and inter", dropped["total"], dropped["contra"])
    same("intra, which is dropped,", dropped["intra"], 0.0)
    dropped = emtc.EMTC(2, epochs=1, drop="contra", **cpu).fit(X).history_[0]
    same("contra, which is dropped,", dropped["contra"], 0.0)
    half = emtc.EMTC(2, epochs=1, **cpu).fit(X).checkpoint()
    resumed = emtc.EMTC(2, epochs=2, **cpu).fit(X, resume=half)
    same("embedding_ of a run that was resumed", resumed.embedding_, model.embedding_)
    other = emtc.EMTC(2, epochs=2, **cpu)
    other._o = emtc.settings(other)
    data, learned = other._prepare(X, fitting=True), model.net_.importance.state_dict()
    ends = [f(other, *data, start, 1) for start in (0, 1)]  # trials of one epoch
    same("the number of epochs with `epochs` = 1", len(other.history_), 1)
    same("what is returned, Eq. (10) at the end,", ends[0], half["history"][0]["contrast"])
    same("whether `number` = 0 and 1 are the same network", ends[0] == ends[1], False)
    f(other, *data, 0, 0, taught=learned)
    same("the first w of the importance network", other.net_.importance.w, learned["w"])
    # With lr = 0 the network stands still, so the losses of an epoch follow from its embeddings.
    still = emtc.EMTC(2, epochs=1, lr=0, hide=0, mask="none", **cpu).fit(X)
    E, C, record = still.embedding_.astype(float), still.labels_, still.history_[0]
    total = 0.0
    for i in range(12):
        lengths = [math.sqrt(E[i] @ E[i]) * math.sqrt(e @ e) for e in E]
        e = [math.exp(E[i] @ E[j] / lengths[j] / 0.1) for j in range(12)]
        plus = sum(e[j] for j in range(12) if C[j] == C[i] and j != i)
        minus = sum(e[j] for j in range(12) if C[j] != C[i])
        total -= math.log(plus / (plus + minus)) / 12
    same("contra of a network that stands still, all shown,", record["contra"], total, 1e-3)
    x = emtc.z_scored(X)[0]
    with torch.no_grad():
        F = torch.stack([g(x.transpose(1, 2)) for g in still.net_.encoders])  # (V, N, h, T)
        R = still.net_.R(F.transpose(2, 3).flatten(1, 2))  # (V, N T, D)
    want = sum(float((r - x.flatten(0, 1)).square().mean()) for r in R)
    same("intra of a network that stands still, all shown,", record["intra"], want, 1e-3)
    gaps = X.copy()
    gaps[0, 3:7, 0] = gaps[5, :, 1] = np.nan
    missing = emtc.EMTC(2, epochs=1, **cpu).fit(gaps)
    if (missing.mask_ & np.isnan(gaps)).any():
        raise Wrong("a missing entry is kept by the mask")


def series():
    """12 series of two kinds, (12, 16, 2)."""
    rng, t = np.random.default_rng(0), np.arange(16)
    kinds = np.stack([np.sin(t), np.cos(t / 3)], 1), np.stack([np.sin(2 * t), t / 16], 1)
    return np.stack([kinds[n % 2] + 0.2 * rng.normal(size=(16, 2)) for n in range(12)])
