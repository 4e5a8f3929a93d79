"""Is EMTC significantly better? Friedman test, average ranks, Bonferroni-Dunn critical difference.

Over the paper's own Table 2 (published.json) and, once it exists, over ours (results/table2.json). Also
holds the paper's headline claims against its Table 2.

    python experiments/significance.py

Method: Demsar 2006 (JMLR 7), Sections 3.2.2 and 3.2.4. Nothing is trained; --data, --seeds and --epochs
change nothing here.
"""

import json
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

import common
from table2 import UNTRAINED

PUBLISHED = Path(__file__).with_name("published.json")
# Demsar 2006, Table 5(b), alpha = 0.05, k = 2 to 10: what papers compare with. Each entry is the normal
# quantile at 1 - alpha / (2 (k - 1)) but the one for k = 9, printed 2.724 where the quantile is 2.734.
DEMSAR_05 = dict(zip(range(2, 11), (1.960, 2.241, 2.394, 2.498, 2.576, 2.638, 2.690, 2.724, 2.773)))
NOT_A_METHOD = ("oracle", "luck", "paper")  # rows of our Table 2 that read labels or are not ours


# ---------------------------------------------------------------- the test

def average_ranks(values):
    """Ranks (n, k) of `values` (n data sets, k methods): 1 = highest in its row, ties share their mean."""
    values = np.asarray(values, dtype=float)
    above = (values[:, None, :] > values[:, :, None]).sum(-1)      # (n, k): how many are better
    same = (values[:, None, :] == values[:, :, None]).sum(-1)      # (n, k): how many are equal, itself included
    return above + (same + 1) / 2


def friedman(ranks):
    """{"chi2", "p_chi2", "F", "p_F"} of ranks (n, k): Friedman, corrected for ties, and Iman-Davenport.

    p_chi2 is the regularised incomplete gamma function of torch.special, p_F the incomplete beta function
    below. All methods tied everywhere gives chi2 = 0, p = 1.
    """
    n, k = ranks.shape
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    chi2 = 0.0 if spread == 0 else (k - 1) * n * n * float(((ranks.mean(0) - (k + 1) / 2) ** 2).sum()) / spread
    p_chi2 = torch.special.gammaincc(torch.tensor((k - 1) / 2, dtype=torch.float64),
                                     torch.tensor(chi2 / 2, dtype=torch.float64)).item()
    room = n * (k - 1) - chi2
    F = math.inf if room < 1e-9 else (n - 1) * chi2 / room
    p_F = 0.0 if F == math.inf else f_tail(F, k - 1, (k - 1) * (n - 1))
    return {"chi2": chi2, "p_chi2": p_chi2, "F": F, "p_F": p_F}


def f_tail(F, d1, d2):
    """P(F' > F) of the F distribution with d1, d2 > 0 degrees of freedom."""
    x = d2 / (d2 + d1 * F)
    a, b = d2 / 2, d1 / 2
    # the fraction converges fast below the mean of the beta distribution; above it, take the other tail
    if x <= (a + 1) / (a + b + 2):
        return _beta_fraction(a, b, x)
    return 1 - _beta_fraction(b, a, 1 - x)


def _beta_fraction(a, b, x, steps=300):
    """Regularised incomplete beta I_x(a, b) by its continued fraction, evaluated from the far end (DLMF 8.17.22)."""
    if x == 0:
        return 0.0
    value = 1.0
    for step in range(steps, 0, -1):
        m = step // 2
        if step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        value = 1 + term / value
    log_front = (math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
                 if x < 1 else -math.inf)
    return math.exp(log_front) / (a * value)


def critical_difference(k, n, alpha=0.05, table=True):
    """Bonferroni-Dunn: the smallest significant difference of average ranks to a control, k methods, n data sets.

    With `table`, alpha = 0.05 and k <= 10 take the printed value of Demsar's Table 5(b), else the normal
    quantile itself (9 methods, 15 data sets: 2.724 by the table, 2.734 by the quantile).
    """
    if table and alpha == 0.05 and k in DEMSAR_05:
        q = DEMSAR_05[k]
    else:
        q = statistics.NormalDist().inv_cdf(1 - alpha / (2 * (k - 1)))
    return q * math.sqrt(k * (k + 1) / (6 * n))


def compare(means, control):
    """Everything about `means` ({data: {method: mean}}, higher is better), every method against `control`."""
    methods = list(next(iter(means.values())))
    values = np.array([[row[m] for m in methods] for row in means.values()])  # (n, k)
    ranks = average_ranks(values)
    n, k = ranks.shape
    average = dict(zip(methods, ranks.mean(0).tolist()))
    cd = {str(c): critical_difference(k, n, a) for c, a in ((95, 0.05), (99, 0.01))}
    exact = critical_difference(k, n, 0.05, table=False)
    gap = {m: average[m] - average[control] for m in methods if m != control}
    return {"data": list(means), "control": control, "n_data": n, "n_methods": k, **friedman(ranks),
            "critical_difference": cd, "critical_difference_95_quantile": exact,
            "average_rank": dict(sorted(average.items(), key=lambda item: item[1])),
            "mean": dict(zip(methods, values.mean(0).tolist())), "rank_gap": gap,
            "significant": {c: [m for m in gap if gap[m] > cd[c]] for c in cd},
            "table_and_quantile_agree": all((g > cd["95"]) == (g > exact) for g in gap.values()),
            "beaten_on": {data: [m for m in methods if row[m] > row[control]] for data, row in means.items()
                          if any(row[m] > row[control] for m in methods)}}


# ---------------------------------------------------------------- the paper's claims, from its own table

def published_means(published, metric):
    """{data: {method: mean}} of the paper's Table 2."""
    return {data: {m: row[metric][m][0] for m in published["table2"]["methods"]}
            for data, row in published["table2"]["results"].items()}


def readings(means, control="EMTC"):
    """What "improvement over the strongest baseline" can mean, each in percent ({reading: value})."""
    methods = [m for m in next(iter(means.values())) if m != control]
    ours = np.array([row[control] for row in means.values()])                        # (n,)
    others = np.array([[row[m] for m in methods] for row in means.values()])         # (n, k - 1)
    best, second = others.max(1), others.mean(0).argmax()
    name, other = methods[second], others[:, second]
    return {"points over the best other of each data set": 100 * (ours - best).mean(),
            "relative to the best other of each data set, mean of ratios": 100 * (ours / best - 1).mean(),
            "relative to the best other of each data set, ratio of means": 100 * (ours.mean() / best.mean() - 1),
            f"points over {name}, best other on average": 100 * (ours - other).mean(),
            f"relative to {name}, mean of ratios": 100 * (ours / other - 1).mean(),
            f"relative to {name}, ratio of means": 100 * (ours.mean() / other.mean() - 1)}


def check_claims(published):
    """One dict a headline claim: its readings in Table 2, the nearest one, and whether one gives the number."""
    out = []
    for metric, claim in published["claims"].items():
        entry = {"metric": metric, **claim, "readings": {}, "nearest": None, "borne_out": None}
        if all(metric in row for row in published["table2"]["results"].values()):
            entry["readings"] = readings(published_means(published, metric))
            entry["nearest"] = min(entry["readings"], key=lambda r: abs(entry["readings"][r] - claim["percent"]))
            # printed with two decimals of inputs with four: a true match differs by rounding only
            entry["borne_out"] = bool(abs(entry["readings"][entry["nearest"]] - claim["percent"]) < 0.01)
        out.append(entry)
    return out


def collapsed(published):
    """Cells of Table 2 whose F1 is 2 ACC / (1 + ACC), as [data, method]: one cluster, scored on one class.

    All samples in one cluster have precision ACC and recall 1 on the largest class; F1 reaches this value
    only if the classes without a cluster are left out of the mean.
    """
    return [[data, m] for data, row in published["table2"]["results"].items() for m in row["ACC"]
            if abs(row["F1"][m][0] - 2 * row["ACC"][m][0] / (1 + row["ACC"][m][0])) < 1.5e-4]


def recount_f1(published):
    """F1 means with the classes that `collapsed` leaves out counted as 0, as macro F1 has it."""
    means = published_means(published, "F1")
    for data, method in collapsed(published):
        means[data][method] /= published["table1"]["datasets"][data]["g"]
    return means


# ---------------------------------------------------------------- our own table

def own_means(path, metric):
    """{data: {method: mean}} of our results/table2.json: the methods that have this metric on every data set."""
    table = json.loads(path.read_text(encoding="utf-8"))["table"]
    usable = [{m for m, cell in row.items() if metric in cell and not m.endswith(UNTRAINED)
               and not any(w in m.lower() for w in NOT_A_METHOD)}
              for row in table.values()]
    methods = [m for m in next(iter(table.values()), {}) if all(m in names for names in usable)]
    return {data: {m: row[m][metric]["mean"] for m in methods} for data, row in table.items()}


def own(path):
    """{metric: compare(...)} of our own table, {} where there is none or too little to rank."""
    out = {}
    for metric in ("ACC", "F1") if path.exists() else ():
        means = own_means(path, metric)
        methods = list(next(iter(means.values()), {}))
        control = next((m for m in methods if m.startswith("EMTC")), None)
        if control and len(methods) > 1 and len(means) > 1:
            out[metric] = compare(means, control)
    return out


# ---------------------------------------------------------------- output

def report(source, results):
    """Print the ranks of {metric: compare(...)} as one table, and the tests under it."""
    methods = list(next(iter(results.values()))["average_rank"])
    mark = lambda r, m: "" if m not in r["rank_gap"] else next(  # noqa: E731
        (f" ({c} %)" for c in ("99", "95") if m in r["significant"][c]), " (no)")
    rows = [[m, *(f"{r['average_rank'][m]:.3f}{mark(r, m)}" for r in results.values()),
             *(f"{r['mean'][m]:.3f}" for r in results.values())] for m in methods]
    common.print_table(["method", *(f"rank {k}" for k in results), *(f"mean {k}" for k in results)], rows,
                       f"{source}: average rank, in brackets whether it differs from "
                       f"{next(iter(results.values()))['control']}'s")
    for metric, r in results.items():
        cd, losses = r["critical_difference"], ", ".join(r["beaten_on"]) or "none"
        print(f"{metric}: {r['n_methods']} methods, {r['n_data']} data sets; Friedman chi2 {r['chi2']:.2f}, "
              f"p {r['p_chi2']:.1e}; Iman-Davenport F {r['F']:.2f}, p {r['p_F']:.1e};\n     critical difference "
              f"95 % {cd['95']:.3f} (by the quantile {r['critical_difference_95_quantile']:.3f}), 99 % "
              f"{cd['99']:.3f}; {r['control']} is beaten on {len(r['beaten_on'])}: {losses}")


def report_claims(claims):
    """Print the headline claims beside what Table 2 gives."""
    rows = []
    for c in claims:
        near = f"{c['readings'][c['nearest']]:.2f} ({c['nearest']})" if c["nearest"] else "no such column in Table 2"
        verdict = {True: "yes", False: "no", None: "cannot be checked"}[c["borne_out"]]
        rows.append([f"{c['percent']} % {c['metric']}", verdict, near])
    common.print_table(["claim", "in Table 2", "nearest reading, %"], rows, "The headline claims")


def draw(axes, groups):
    """One panel a source and metric: average ranks, with the reach of the critical difference from the control."""
    for row, (source, results) in zip(axes, groups.items()):
        for axis, (metric, r) in zip(row, results.items()):
            names = list(r["average_rank"])[::-1]
            ranks, start = [r["average_rank"][m] for m in names], r["average_rank"][r["control"]]
            for percent, colour in (("99", "#e6e6e6"), ("95", "#c4c4c4")):
                cd = r["critical_difference"][percent]
                axis.axvspan(start, start + cd, color=colour, lw=0, label=f"within CD {percent} % = {cd:.2f}")
            far = [m in r["significant"]["95"] or m == r["control"] for m in names]
            axis.hlines(range(len(names)), start, ranks, color="#888888", lw=1)
            axis.scatter(ranks, range(len(names)), s=45, zorder=3, edgecolors=common.COLOURS[1], linewidths=1.5,
                         c=[common.COLOURS[1] if f else "white" for f in far])
            for y, rank in enumerate(ranks):
                axis.annotate(f"{rank:.2f}", (rank, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
            axis.set(yticks=range(len(names)), yticklabels=names, xticks=range(1, r["n_methods"] + 1),
                     xlim=(0.7, r["n_methods"] + 0.8), xlabel="average rank (1 = best)",
                     title=f"{source}, {metric}, {r['n_data']} data sets")
            axis.grid(visible=False)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, columnspacing=0.8,
                        handlelength=1.2)


def main(argv=None):
    """Print and save everything; returns 0."""
    args = common.arguments("significance", __doc__, argv, options={"--own": dict(
        type=Path, default=common.ROOT / "results" / "table2.json", metavar="FILE", help="our own Table 2")})
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    ranked = {m: compare(published_means(published, m), "EMTC") for m in ("ACC", "F1")}
    groups = {"Published Table 2": ranked, "Ours": own(args.own)}
    claims, recount = check_claims(published), compare(recount_f1(published), "EMTC")
    for source, results in groups.items():
        if results:
            report(source, results)
        else:
            print(f"\n{source}: nothing to rank yet; run experiments/table2.py first ({args.own})")
    report_claims(claims)
    strongest = {f"{m}, {by}": [n for n, _ in sorted(
        ((n, v) for n, v in r[key].items() if n != "EMTC"), key=lambda item: item[1], reverse=key == "mean")][:2]
        for m, r in ranked.items() for by, key in (("rank", "average_rank"), ("mean", "mean"))}
    print("\nThe paper names FCACC and FEI as the strongest competitors. By Table 2: "
          + "; ".join(f"{' and '.join(pair)} ({by})" for by, pair in strongest.items()) + ".")
    cells = collapsed(published)
    print(f"\n{len(cells)} cells of Table 2 have F1 = 2 ACC / (1 + ACC), one cluster scored on one class: "
          f"{', '.join(f'{d} {m}' for d, m in cells)}.\nWith the missing classes counted as 0, EMTC's F1 rank is "
          f"{recount['average_rank']['EMTC']:.3f} instead of {ranked['F1']['average_rank']['EMTC']:.3f}.")
    common.write_json(args.out / "significance.json", {
        "experiment": "significance", "source": published["source"], "published": ranked, "own": groups["Ours"],
        "claims": claims, "strongest_others": strongest, "collapsed_cells": cells, "published_F1_recounted": recount})
    shown = {source: results for source, results in groups.items() if results}
    common.picture(args, lambda figure, axes: draw(axes, shown), height=4 * len(shown), nrows=len(shown),
                   ncols=2, squeeze=False)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
