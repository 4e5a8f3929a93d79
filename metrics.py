"""How well a clustering meets the true classes: ACC, F1, NMI, ARI, from the contingency table.

Labels are names only: any numbering, integers or strings, lists, numpy or torch, for n samples in
r classes and c clusters. The auction algorithm (Bertsekas, 1988) matches classes and clusters.
"""

import numpy as np


def scores(y_true, y_pred):
    """{"ACC", "F1", "NMI", "ARI"}: the four functions below, each a plain float."""
    functions = (("ACC", accuracy), ("F1", f1), ("NMI", nmi), ("ARI", ari))
    return {name: function(y_true, y_pred) for name, function in functions}


def accuracy(y_true, y_pred):
    """Share of the samples (0 to 1) in the class of their cluster: sum_i table[i, m(i)] / n.

    The match m of classes and clusters makes this as large as possible; what has no match is wrong.
    ValueError (all four functions) for no labels, unequal lengths or a missing label.
    """
    table = contingency(y_true, y_pred)
    return float(table[best_match(table)].sum() / table.sum())


def f1(y_true, y_pred):
    """Macro F1 (0 to 1): mean over the classes i of 2 table[i, m(i)] / (|i| + |m(i)|).

    The match m is that of `accuracy`, and of several with its ACC the one with the highest F1, so
    that the names of the labels play no role. A class without a cluster has 0.
    """
    table = contingency(y_true, y_pred)
    sizes = table.sum(1)[:, None] + table.sum(0)  # (r, c), of class and cluster
    return float((2 * table / sizes)[best_match(table)].sum() / len(table))


def nmi(y_true, y_pred):
    """Mutual information over the arithmetic mean of both entropies (0 to 1); 1 if both are 0.

    With p_ij = table[i, j] / n and its sums p_i over clusters, q_j over classes:
    I = sum_ij p_ij log(p_ij / (p_i q_j)), H(p) = - sum_i p_i log p_i, 2 I / (H(p) + H(q)).
    """
    joint = contingency(y_true, y_pred)
    joint = joint / joint.sum()  # (r, c)
    p, q, some = joint.sum(1), joint.sum(0), joint > 0  # (r,), (c,), (r, c)
    if len(p) == len(q) == 1:
        return 1.0
    information = (joint[some] * np.log(joint[some] / np.outer(p, q)[some])).sum()
    entropies = -(p * np.log(p)).sum() - (q * np.log(q)).sum()
    return float(np.clip(2 * information / entropies, 0, 1))


def ari(y_true, y_pred):
    """Adjusted Rand index (Hubert & Arabie, 1985): 1 if both agree, about 0 by chance, >= -0.5.

    Of the `pairs` of samples, A share a class, B a cluster, `both` share both, A B / pairs of these
    by chance. ARI = (both - chance) / ((A + B) / 2 - chance), and 1 where that is 0 / 0.
    """
    table = contingency(y_true, y_pred)
    groups = table, table.sum(1), table.sum(0), table.sum()
    # Python's integers, as products of numbers of pairs pass 2^63 at n = 200,000.
    both, A, B, pairs = (int((m * (m - 1) // 2).sum()) for m in groups)
    above, below = 2 * (both * pairs - A * B), (A + B) * pairs - 2 * A * B  # 2 pairs times both
    return above / below if below else 1.0


def contingency(y_true, y_pred):
    """n labels each -> table (r, c) int64: how many samples of class i are in cluster j."""
    i, j = _codes(y_true, "y_true"), _codes(y_pred, "y_pred")  # (n,), (n,)
    if len(i) != len(j):
        raise ValueError(f"y_true and y_pred must be of one length, got {len(i)} and {len(j)}")
    c = j.max() + 1
    return np.bincount(i * c + j, minlength=(i.max() + 1) * c).reshape(-1, c)


def _codes(labels, name):
    """n labels -> codes (n,) int64, 0 .. groups - 1, each in use."""
    labels = labels.tolist() if hasattr(labels, "tolist") else labels  # of numpy, torch, pandas
    x = np.asarray(labels)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name} must be a list of at least one label, got shape {x.shape}")
    mixed = x.dtype.kind == "U" and not all(isinstance(v, str) for v in labels)  # [1, "a"]
    if x.dtype.kind not in "USiubf" or mixed or (x.dtype.kind == "f" and np.isnan(x).any()):
        raise ValueError(f"{name} must hold numbers only or strings only, and no missing label")
    return np.unique(x, return_inverse=True)[1]


def best_match(table):
    """The match (rows, cols) of a contingency table with the highest ACC, and then highest F1."""
    # One sample more outweighs all F1 terms, each at most `unit`; 2^58 keeps `match` in int64.
    side = max(table.shape) + 1
    unit = max(1, 2**58 // (int(table.max()) + 1) // side**2)
    terms = 2 * table / (table.sum(1)[:, None] + table.sum(0))  # (r, c)
    return match(table * (side * unit) + (terms * unit).astype(np.int64))


def match(table):
    """Best one-to-one match in a table (r, c) of integers >= 0 -> rows, cols, (min(r, c),) each.

    Rows bid for columns as in an auction. With integer benefits the result is best if epsilon, the
    least raise, is below 1 / r; here benefits are scaled by c + 1 and epsilon is 1. From prices of
    0 a few rounds mostly do. Where rows fight for equally good columns, epsilon falls from high to
    1, and rows of 0 fill the table to a square, as no column with a price may be left over.
    """
    table = np.asarray(table)
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "iub" or table.min() < 0:
        raise ValueError(f"need a 2-d table of integers >= 0, got {table.dtype} {table.shape}")
    if table.shape[0] > table.shape[1]:
        cols, rows = match(table.T)
        return rows[rows.argsort()], cols[rows.argsort()]
    r, c = table.shape
    benefit, price = table.astype(np.int64) * (c + 1), np.zeros(c, dtype=np.int64)
    col, epsilon = _auction(benefit, price, 1, most=5 * c), int(benefit.max()) + 1
    if (col < 0).any():
        benefit = np.pad(benefit, ((0, c - r), (0, 0)))  # (c, c)
        while epsilon > 1:
            epsilon = max(1, epsilon // 5)
            price -= price.min()
            col = _auction(benefit, price, epsilon)
    return np.arange(r), col[:r]


def _auction(benefit, price, epsilon, most=-1):
    """Rounds until each row has a column, or `most` (-1: no limit) -> col (r,); changes price."""
    col, owner = np.full(len(benefit), -1), np.full(len(price), -1)
    while (col < 0).any() and most != 0:
        bidding_round(benefit, price, col, owner, epsilon)
        most -= 1
    return col


def bidding_round(benefit, price, col, owner, epsilon):
    """Each row without a column bids for the column of highest value, benefit less price.

    Bid = price + lead (best value less second best) + epsilon. The highest bid for a column is its
    new price and wins it; the row that held it is free again. benefit (r, c); changed in place:
    price (c,); col (r,), the column of each row; owner (c,), the row of each column; -1 = none.
    """
    free = np.flatnonzero(col < 0)  # (f,)
    value = benefit[free] - price  # (f, c)
    want, ranked = value.argmax(1), np.sort(value, 1)  # (f,), (f, c)
    lead = ranked[:, -1] - ranked[:, -2:][:, 0]  # (f,); 0 if there is one column only
    bid = price[want] + lead + epsilon
    np.maximum.at(price, want, bid)  # the highest bid for a column
    won = bid == price[want]
    taken, loser = want[won], owner[want[won]]
    owner[taken] = free[won]  # of equal bids the last
    col[loser[loser >= 0]] = -1
    col[owner[taken]] = taken
