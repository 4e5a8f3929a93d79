"""Is EMTC significantly better? Friedman test, average ranks, Bonferroni-Dunn critical difference.

Over the paper's own Table 2 and, once it exists, over ours (results/table2.json). Method: Demsar
2006 (JMLR 7), Sections 3.2.2 and 3.2.4.
"""

import math
import statistics
import sys

import numpy as np
import store
import tables
import torch
from table2 import UNTRAINED

NOT_A_METHOD = ("oracle", "luck", "paper", "frozen")  # rows that read labels or are not ours


def average_ranks(values):
    """Ranks (n, k) of n data sets, k methods: 1 = highest in its row, ties share their mean."""
    values = np.asarray(values, dtype=float)
    other, own = values[:, None, :], values[:, :, None]
    above, same = (other > own).sum(-1), (other == own).sum(-1)  # (n, k); itself is the same
    return above + (same + 1) / 2


def friedman(ranks):
    """{"chi2", "p"} of ranks (n, k): Friedman's test, corrected for ties; all tied: 0 and 1."""
    n, k = ranks.shape
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    gaps = float(((ranks.mean(0) - (k + 1) / 2) ** 2).sum())
    chi2 = 0.0 if spread == 0 else (k - 1) * n * n * gaps / spread
    half = torch.tensor([(k - 1) / 2, chi2 / 2], dtype=torch.float64)
    return {"chi2": chi2, "p": torch.special.gammaincc(*half).item()}  # with k - 1 degrees


def critical_difference(k, n, alpha=0.05):
    """Bonferroni-Dunn: the smallest significant difference of average ranks to a control.

    k methods, n data sets. Demsar's Table 5(b) prints 2.724 for k = 9, where the quantile is 2.734.
    """
    q = statistics.NormalDist().inv_cdf(1 - alpha / (2 * (k - 1)))
    return q * math.sqrt(k * (k + 1) / (6 * n))


def compare(means, control):
    """`means` ({data: {method: mean}}, higher is better), every method against `control`."""
    methods = list(next(iter(means.values())))
    values = np.array([[row[m] for m in methods] for row in means.values()])  # (n, k)
    ranks = average_ranks(values)
    n, k = ranks.shape
    average = dict(sorted(zip(methods, ranks.mean(0).tolist()), key=lambda item: item[1]))
    cd = {str(c): critical_difference(k, n, a) for c, a in ((95, 0.05), (99, 0.01))}
    gap = {m: average[m] - average[control] for m in methods if m != control}
    better = {d: [m for m in methods if row[m] > row[control]] for d, row in means.items()}
    return {"data": list(means), "control": control, "n_data": n, "n_methods": k, **friedman(ranks),
            "critical_difference": cd, "average_rank": average,
            "mean": dict(zip(methods, values.mean(0).tolist())), "rank_gap": gap,
            "significant": {c: [m for m in gap if gap[m] > cd[c]] for c in cd},
            "beaten_on": {d: m for d, m in better.items() if m}}  # fmt: skip


def published_means(published, metric):
    """{data: {method: mean}} of the paper's Table 2."""
    table = published["table2"]
    return {data: {m: row[metric][m][0] for m in table["methods"]}
            for data, row in table["results"].items()}  # fmt: skip


def own(table):
    """{metric: compare(...)} of our own table, {} where there is too little to rank.

    Of the methods with this metric on every data set.
    """
    out = {}
    for metric in ("ACC", "F1"):
        methods = [m for m, cells in tables.average(table).items() if metric in cells
                   and not any(word in m for word in (UNTRAINED, *NOT_A_METHOD))]  # fmt: skip
        if len(table) > 1 and len(methods) > 1 and "EMTC" in methods:
            means = {d: {m: row[m][metric]["mean"] for m in methods} for d, row in table.items()}
            out[metric] = compare(means, "EMTC")
    return out


def report(source, results):
    """Print and return the ranks of {metric: compare(...)} as one table; print the tests."""
    rows = []
    for m in next(iter(results.values()))["average_rank"]:
        row = [m]
        for r in results.values():
            differs = [f"{c} %" for c in ("99", "95") if m in r["significant"][c]] or ["no"]
            mark = "" if m == r["control"] else f" ({differs[0]})"
            row += [f"{r['average_rank'][m]:.3f}{mark}", f"{r['mean'][m]:.3f}"]
        rows.append(row)
    heads = ["method", *(f"{what} {k}" for k in results for what in ("rank", "mean"))]
    title = f"{source}: average rank, in brackets whether it differs from EMTC's"
    text = tables.print_table(heads, rows, title)
    for metric, r in results.items():
        cd, losses = r["critical_difference"], ", ".join(r["beaten_on"]) or "none"
        print(f"{metric}, {r['n_data']} data sets: Friedman chi2 {r['chi2']:.2f}, p {r['p']:.1e}; "
              f"critical difference 95 % {cd['95']:.3f}, 99 % {cd['99']:.3f}; EMTC is beaten on "
              f"{len(r['beaten_on'])}: {losses}")  # fmt: skip
    return text


def draw(axes, groups):
    """One panel a source and metric: average ranks, and the critical difference from EMTC's."""
    for row, (source, results) in zip(axes, groups.items()):
        for axis, (metric, r) in zip(row, results.items()):
            ranks, start = r["average_rank"], r["average_rank"][r["control"]]
            for percent, colour in (("99", "#e6e6e6"), ("95", "#c4c4c4")):
                end = start + r["critical_difference"][percent]
                label = f"not significant at {percent} %"
                axis.axvspan(start, end, color=colour, lw=0, label=label)
            axis.barh(list(ranks), list(ranks.values()), height=0.15, color=tables.COLOURS[0])
            axis.plot(list(ranks.values()), list(ranks), "o", color=tables.COLOURS[1])
            title = f"{source}, {metric}, {r['n_data']} data sets"
            axis.set(title=title, xlabel="average rank (1 = best)", xlim=(0.7, None))
            axis.invert_yaxis()


def main(argv=None):
    """Print and save everything."""
    args = store.arguments("significance", __doc__, argv)
    source, paper = args.out / "table2.json", store.PAPER
    ranked = {m: compare(published_means(paper, m), "EMTC") for m in ("ACC", "F1")}
    groups = {"Published Table 2": ranked, "Ours": own(tables.read_json(source).get("table", {}))}
    shown = {name: results for name, results in groups.items() if results}
    text = [report(name, results) for name, results in shown.items()]
    if not groups["Ours"]:
        print(f"\nOurs: nothing to rank yet; run experiments/table2.py first ({source})")
    content = {"experiment": "significance", "source": paper["source"], "published": ranked,
               "own": groups["Ours"], "text": text}  # fmt: skip
    if groups["Ours"]:
        content |= {"read_from": source.name, "read_hash": tables.file_hash(source)}
    store.write_json(args.out / "significance.json", content)
    shape = {"height": 4 * len(shown), "nrows": len(shown), "ncols": 2, "squeeze": False}
    tables.picture(args, lambda axes: draw(axes, shown), **shape)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
