"""How well a clustering meets the true classes: ACC, F1, NMI, ARI, from one contingency table.

Labels are names only: any numbering, integers or strings, lists, numpy or torch, for n samples in r classes and
c clusters. Classes and clusters are matched one to one by the auction algorithm (Bertsekas, 1988).
"""
from typing import NamedTuple

import numpy as np

NEVER = np.iinfo(np.int64).min


def scores(y_true, y_pred):
    """{"ACC", "F1", "NMI", "ARI"}: the four functions below in one pass, each a plain float."""
    table = _contingency(y_true, y_pred)
    acc, f1_ = _acc_f1(table)
    return {"ACC": acc, "F1": f1_, "NMI": _nmi(table), "ARI": _ari(table)}


def accuracy(y_true, y_pred):
    """Share of the samples (0 to 1) that lie in the class of their cluster, under the best one-to-one match.

    y_true, y_pred: n labels each; clusters beyond the number of classes stay unmatched and count as wrong.
    ValueError (all four functions) if the lengths differ, there are none, or a label is missing.
    """
    return _acc_f1(_contingency(y_true, y_pred))[0]


def f1(y_true, y_pred):
    """Macro F1 (0 to 1): the mean over the true classes under the match of `accuracy`; an unmatched class has 0.

    Of several matches with the same ACC the one with the highest F1 counts, so names of labels play no role.
    """
    return _acc_f1(_contingency(y_true, y_pred))[1]


def nmi(y_true, y_pred):
    """Mutual information over the arithmetic mean of both entropies (0 to 1); 1 if both have one group only."""
    return _nmi(_contingency(y_true, y_pred))


def ari(y_true, y_pred):
    """Adjusted Rand index (Hubert & Arabie, 1985): 1 if both agree, about 0 by chance, at least -0.5."""
    return _ari(_contingency(y_true, y_pred))


def match(table):
    """Best one-to-one assignment in an integer table (r, c), none negative -> rows, cols, each (min(r, c),) int64.

    Auction: each free row bids for the column of highest value (benefit less price) and raises its price by the
    lead over the second best, plus epsilon. With integer benefits the result is exact once epsilon < 1 / n; here
    benefits are scaled by n + 1 and epsilon is 1, all in integers. From prices of 0, which also makes a table
    that is not square exact, this mostly ends after a few rounds. Many rows that fight for few equally good
    columns would raise prices by 1 a round; that is broken off and solved by epsilon-scaling on a square table.
    """
    table = np.asarray(table)
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "iub" or table.min() < 0:
        raise ValueError(f"table must be a non-empty 2-d table of integers >= 0, got {table.dtype} {table.shape}")
    if table.shape[0] > table.shape[1]:
        cols, rows = match(table.T)
        return rows[rows.argsort()], cols[rows.argsort()]
    (r, n), useful = table.shape, np.arange(table.shape[1])
    if r < n:
        # The other r - 1 rows can take no more than r - 1 columns away, so a row needs only its r best ones.
        useful = np.unique(np.argpartition(-table.astype(np.int64), r - 1, axis=1)[:, :r])
        table, n = table[:, useful], len(useful)                         # (r, n)
    benefit = table.astype(np.int64) * (n + 1)
    col = _bidding(benefit, np.zeros(n, dtype=np.int64), epsilon=1, max_rounds=5 * n)
    if (col < 0).any():
        benefit = np.concatenate([benefit, np.zeros((n - r, n), dtype=np.int64)])           # (n, n)
        price, epsilon = np.zeros(n, dtype=np.int64), max(2, int(benefit.max()))
        while epsilon > 1:
            epsilon = max(1, epsilon // 5)
            price -= price.min()
            col = _bidding(benefit, price, epsilon)
    return np.arange(r), useful[col[:r]]


def _bidding(benefit, price, epsilon, max_rounds=None):
    """Rounds of bids by all free rows until each has a column -> (r,), -1 = still free; raises price in place."""
    r, n = benefit.shape
    if n == 1:
        return np.zeros(1, dtype=np.int64)
    col, owner = np.full(r, -1), np.full(n, -1)
    free, rounds = np.arange(r), 0
    while free.size and rounds != max_rounds:
        value = benefit[free] - price                                    # (f, n)
        every, want = np.arange(free.size), value.argmax(1)              # (f,)
        lead = value[every, want]
        value[every, want] = NEVER
        bid = price[want] + (lead - value.max(1)) + epsilon
        np.maximum.at(price, want, bid)
        won = bid == price[want]
        taken, loser = want[won], owner[want[won]]
        owner[taken] = free[won]
        col[loser[loser >= 0]] = -1
        col[owner[taken]] = taken
        free = np.flatnonzero(col < 0)
        rounds += 1
    return col


class _Table(NamedTuple):
    row: np.ndarray     # (m,) class of each cell that is not 0
    col: np.ndarray     # (m,) its cluster
    count: np.ndarray   # (m,) its samples
    a: np.ndarray       # (r,) samples of each class
    b: np.ndarray       # (c,) samples of each cluster


def _contingency(y_true, y_pred):
    t, p = _codes(y_true, "y_true"), _codes(y_pred, "y_pred")            # (n,), (n,)
    if len(t) != len(p):
        raise ValueError(f"y_true and y_pred must have the same length, got {len(t)} and {len(p)}")
    a, b = np.bincount(t), np.bincount(p)
    cell = t * len(b) + p
    if len(a) * len(b) <= 4 * len(t) + 2**16:
        full = np.bincount(cell)
        cell = np.flatnonzero(full)
        count = full[cell]
    else:
        cell, count = np.unique(cell, return_counts=True)
    return _Table(cell // len(b), cell % len(b), count, a, b)


def _codes(labels, name):
    """n labels -> int64 codes 0 .. groups - 1, each in use."""
    given = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    given = given.tolist() if getattr(given, "dtype", None) == object else given
    x = np.asarray(given)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name} must be a list of at least one label, got shape {x.shape}")
    mixed = x.dtype.kind in "US" and not isinstance(given, np.ndarray) and len({isinstance(v, str) for v in given}) > 1
    if x.dtype.kind not in "USiubf" or mixed:
        raise ValueError(f"{name} must hold numbers only or strings only, without missing labels")
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise ValueError(f"{name} contains NaN: each sample needs a label")
    if x.dtype.kind in "iub":
        low, high = int(x.min()), int(x.max())
        if high - low < 4 * x.size + 2**16 and high < 2**63:             # counting beats the sort of np.unique
            x = x.astype(np.int64) - low
            return (np.cumsum(np.bincount(x) > 0) - 1)[x]
    return np.unique(x, return_inverse=True)[1]


def _acc_f1(table):
    row, col, count, a, b = table
    # A class and a cluster that meet nobody else are each other's match: labels of n groups need no n x n table.
    pair = (np.bincount(row)[row] == 1) & (np.bincount(col)[col] == 1)   # (m,)
    hit, size = count[pair], a[row[pair]] + b[col[pair]]
    if not pair.all():
        rows, i = np.unique(row[~pair], return_inverse=True)
        cols, j = np.unique(col[~pair], return_inverse=True)
        dense = np.zeros((len(rows), len(cols)), dtype=np.int64)
        dense[i, j] = count[~pair]
        sizes = a[rows][:, None] + b[cols]                               # (rows, cols)
        # ACC first, F1 second: one sample outweighs all F1 terms together, which are below `unit` each.
        n = max(dense.shape) + 1
        unit = max(1, 2**58 // (int(dense.max()) + 1) // n**2)
        i, j = match(dense * (n * unit) + (2 * dense / sizes * unit).astype(np.int64))
        hit, size = np.append(hit, dense[i, j]), np.append(size, sizes[i, j])
    return float(hit.sum() / count.sum()), float((2 * hit / size).sum() / len(a))


def _nmi(table):
    n = table.count.sum()
    if len(table.a) == len(table.b) == 1:
        return 1.0
    information = table.count / n * np.log(n * table.count / (table.a[table.row] * table.b[table.col]))
    entropy = [-float((m / n * np.log(m / n)).sum()) for m in (table.a, table.b)]
    return min(1.0, max(0.0, 2 * float(information.sum()) / sum(entropy)))


def _ari(table):
    n = int(table.count.sum())
    both, in_a, in_b = (int((m * (m - 1) // 2).sum()) for m in (table.count, table.a, table.b))
    # Python integers: products of pair counts pass 2^63 at n = 100,000.
    above = 2 * (both * (n * (n - 1) // 2) - in_a * in_b)
    below = (in_a + in_b) * (n * (n - 1) // 2) - 2 * in_a * in_b
    return above / below if below else 1.0
