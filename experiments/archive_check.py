"""Defects of the data sets themselves: what a clustering score on them can and cannot show.

For each data set, both splits: variates that are lagged copies of one series (X[t, j+1] = X[t+lag, j]), equal
and constant variates, duplicated series, missing values, unequal lengths, and the class shares of the test
split beside the paper's ACC: the largest class (one cluster for all), and the luck floor (the best of 201
uniformly random labelings).

    python experiments/archive_check.py

Nothing is trained; --epochs changes nothing here, --seeds gives the seeds of the random labelings.
"""

import json
import sys
from pathlib import Path

import numpy as np

import common

PUBLISHED = Path(__file__).with_name("published.json")
LAGGED_FROM = 0.99  # share of equal values from which variates count as lagged copies
PROBE = 8           # series that the search over all lags looks at; the lag found is measured on all series


def equal_share(X, lag):
    """Share of pairs with X[:, t, j+1] == X[:, t+lag, j], over t and j where both are known; (share, pairs)."""
    T = X.shape[1]
    at, later = (slice(0, T - lag), slice(lag, T)) if lag >= 0 else (slice(-lag, T), slice(0, T + lag))
    a, b = X[:, at, 1:], X[:, later, :-1]                 # (N, T - |lag|, D - 1)
    pairs = int((~np.isnan(a) & ~np.isnan(b)).sum())
    return (int((a == b).sum()) / pairs if pairs else 0.0), pairs


def find_lag(X):
    """{"lag", "share"} with the largest share of equal values between neighbouring variates of X (N, T, D).

    Lags of either sign that leave at least a tenth of the series to compare. Constant variates are left out:
    they equal themselves at every lag.
    """
    moving = ~constant_variates(X)
    X = X[:, :, moving]
    T, D = X.shape[1:]
    if D < 2:
        return {"lag": None, "share": 0.0}
    reach = T - max(4, T // 10)
    probe = X[np.linspace(0, len(X) - 1, min(PROBE, len(X))).astype(int)]
    lag = max(range(-reach, reach + 1), key=lambda s: (equal_share(probe, s)[0], -abs(s)))
    return {"lag": lag, "share": equal_share(X, lag)[0]}


def constant_variates(X):
    """Bool (D,): True where a variate of X (N, T, D) has one value (or none known) throughout."""
    known = ~np.isnan(X)
    low = np.where(known, X, np.inf).min((0, 1))          # (D,)
    return low >= np.where(known, X, -np.inf).max((0, 1))


def equal_variates(X):
    """Number of variates of X (N, T, D) that equal an earlier one in every value; constant ones not counted."""
    kept = np.ascontiguousarray(X[:, :, ~constant_variates(X)].transpose(2, 0, 1))  # (D', N, T)
    return len(kept) - len({variate.tobytes() for variate in kept})


def duplicates(train, test):
    """Series that equal an earlier one in every value: {"train", "test", "across"} as counts.

    "across" counts test series that stand in the training split; a padded end (NaN) is part of the series.
    """
    first, second = ([np.ascontiguousarray(series + 0.0).tobytes() for series in X] for X in (train, test))
    return {"train": len(first) - len(set(first)), "test": len(second) - len(set(second)),
            "across": sum(series in set(first) for series in set(second))}


def lengths(X):
    """int (N,): length of each series of X (N, T, D) without the all-NaN steps at its end."""
    known = ~np.isnan(X).all(2)                           # (N, T)
    return X.shape[1] - known[:, ::-1].argmax(1)


def missing_share(X):
    """Share of NaN within the series' own lengths, the padding not counted."""
    inside = np.arange(X.shape[1]) < lengths(X)[:, None]  # (N, T)
    return float(np.isnan(X[inside]).mean())


def distinct_share(T, D, lag):
    """Share of the T * D values of one series that are not copies, if its variates lag by `lag`."""
    return (T + (D - 1) * min(abs(lag), T)) / (T * D)


def check(train, test, seeds, published):
    """All findings on one data set ({str: value}); `published` is the paper's ACC ([mean, std]) or None."""
    both = [train.X, test.X]
    T, D = test.X.shape[1:]
    lag = find_lag(test.X)
    lag["lagged_copies"] = lag["share"] >= LAGGED_FROM
    lag["share_train"] = equal_share(train.X[:, :, ~constant_variates(train.X)], lag["lag"])[0] if lag["lag"] else 0.0
    lag["distinct_share"] = distinct_share(T, D, lag["lag"]) if lag["lagged_copies"] else 1.0
    size = np.concatenate([lengths(X) for X in both])
    counts = np.bincount(test.y, minlength=len(test.classes))
    floor = np.array([common.luck_floor(test.y, tries=1, seed=seed)[0] for seed in seeds])
    return {"shape": list(test.X.shape), "n_train": len(train.X), **lag, "equal_variates": equal_variates(test.X),
            "constant_variates": int(constant_variates(test.X).sum()),
            "duplicates": duplicates(*pad(*both)), "missing_share": max(map(missing_share, both)),
            "length": [int(size.min()), int(size.max())], "class_shares": (counts / counts.sum()).tolist(),
            "majority_share": float(counts.max() / counts.sum()),
            "luck_floor": {"mean": float(floor.mean()), "std": float(floor.std()), "tries": len(floor)},
            "paper_ACC": published}


def pad(*arrays):
    """The arrays (N_i, T_i, D) padded with NaN to one length, so that series of two splits can be compared."""
    T = max(X.shape[1] for X in arrays)
    return [np.pad(X, ((0, 0), (0, T - X.shape[1]), (0, 0)), constant_values=np.nan) for X in arrays]


# ---------------------------------------------------------------- output

def lag_text(r):
    """"lag +28: 1.00" where neighbouring variates share enough values for a lag to mean something."""
    return f"lag {r['lag']:+d}: {r['share']:.2f}" if r["share"] > 0.02 else "none"


def row(name, r):
    """The table's row for one data set."""
    dup, low_high = r["duplicates"], r["length"]
    return [name, "x".join(map(str, r["shape"])), lag_text(r), f"{100 * r['distinct_share']:.0f} %",
            f"{r['constant_variates']} / {r['equal_variates']}", f"{dup['train']} / {dup['test']} / {dup['across']}",
            f"{r['missing_share']:.3f}", " to ".join(map(str, sorted({*low_high}))),
            f"{r['majority_share']:.3f}", f"{r['luck_floor']['mean']:.3f}",
            f"{r['paper_ACC'][0]:.3f} ± {r['paper_ACC'][1]:.3f}" if r["paper_ACC"] else "-"]


def draw(figure, axes, results):
    """Left: equal values at the best lag. Right: the largest class, the luck floor and the paper's ACC."""
    names = list(results)[::-1]
    y, colours = np.arange(len(names)), common.COLOURS
    share = [results[n]["share"] for n in names]
    axes[0].barh(y, share, color=[colours[1] if results[n]["lagged_copies"] else "#999999" for n in names])
    for at, n in zip(y, names):
        inside = results[n]["share"] > 0.6
        axes[0].text(results[n]["share"] + (-0.02 if inside else 0.02), at, lag_text(results[n]), va="center",
                     fontsize=9, ha="right" if inside else "left", color="white" if inside else "black")
    axes[0].set(xlim=(0, 1.0), xlabel="share of values equal to the neighbouring\nvariate's at the best lag",
                title="Variates that are lagged copies", yticks=y, yticklabels=names, ylim=(-0.6, len(names) - 0.4))
    axes[0].grid(visible=False, axis="y")
    marks = [("majority_share", "s", colours[4], "largest class"),
             ("luck_floor", "D", colours[1], "best of 201 random"), ("paper_ACC", "o", colours[0], "paper's EMTC")]
    for key, marker, colour, label in marks:
        values = [results[n][key] for n in names]
        values = [v["mean"] if isinstance(v, dict) else v[0] if isinstance(v, list) else v for v in values]
        at = [(v, i) for v, i in zip(values, y) if v is not None]
        axes[1].scatter(*zip(*at) if at else ([], []), marker=marker, color=colour, s=45, label=label, zorder=3)
    axes[1].set(xlim=(0, 1.02), xlabel="ACC", title="ACC that needs no clustering", yticks=y, yticklabels=[],
                ylim=(-0.6, len(names) - 0.4))
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=3)


def main(argv=None):
    """Check every data set, print and save; returns 0."""
    args = common.arguments("archive_check", __doc__, argv, seeds=range(12), quick_seeds=range(3))
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))["table2"]["results"]
    store = common.Store(args, code=("uea_loader", "uea_text", "metrics"), seeds=args.seeds)
    for number, name in enumerate(args.data, 1):
        train, test = common.load(name, args, "train"), common.load(name, args, "test")
        if train.y is None or test.y is None:
            raise common.UserError(f"{test.name} has no labels: its class shares cannot be checked")
        stamp = common.content_hash(train) + common.content_hash(test)
        how = "stored"
        if store.get(test.name, "check", 0, stamp) is None:
            with common.timer() as seconds:
                found = check(train, test, args.seeds, published.get(test.name, {}).get("ACC", {}).get("EMTC"))
            store.add(test.name, "check", 0, stamp, seconds(), **found)
            how = f"{seconds():.1f} s"
        print(f"[{number:2d}/{len(args.data)}] {test.name} {how}", flush=True)
    results = {run["data"]: run for run in store.runs}
    store.finish(lagged=[n for n, r in results.items() if r["lagged_copies"]],
                 paper_within_one_std_of_luck=[n for n, r in results.items() if r["paper_ACC"] and
                                               r["paper_ACC"][0] - r["paper_ACC"][1] <= r["luck_floor"]["mean"]])
    common.print_table(["data", "N x T x D (test)", "lagged copies", "distinct values", "const / equal variates",
                        "duplicates tr / te / across", "missing", "length", "largest class", "luck floor",
                        "paper's ACC"],
                       [row(name, r) for name, r in results.items()])
    common.picture(args, lambda figure, axes: draw(figure, axes, results), height=1.9 + 0.36 * len(results), ncols=2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
