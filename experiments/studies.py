"""A study: some settings of EMTC, every data set and seed, one table, one picture. For all scripts that train it.

    store = studies.fill(args, {"EMTC": {}, "without IVM": {"drop": ("ivm",)}})
    table = studies.finish(store, control="EMTC")      # tables, means, paired differences, saved
    common.picture(args, lambda figure, axes: studies.panels(figure, axes, table), ncols=2)
"""

import numpy as np

import common
import recorded

MARKERS = "osD^vP*X"


def fill(args, variants, drop=("curves", "labels")):
    """A Store with one record per data set, variant ({name: options of EMTC}) and seed; without the `drop` entries."""
    store = common.Store(args, code=recorded.CODE, **recorded.settings(args))
    common.sweep(store, args, list(variants), lambda dataset, variant, seed: recorded.without(
        recorded.run(args, dataset, seed, **variants[variant]), *drop))
    return store


def methods(table):
    """The variants of {data: {variant: ...}} in the order of their first appearance."""
    return list(dict.fromkeys(variant for row in table.values() for variant in row))


def average(table):
    """{"data": names, "cells": {variant: {metric: {"mean", "n"}}}}: the mean of the data sets' means.

    Only of a variant that has the metric on every data set, so that all means are over the same ones.
    """
    cells = {}
    for variant in methods(table):
        for metric in dict.fromkeys(m for row in table.values() for m in row.get(variant, {})):
            values = [row[variant][metric]["mean"] for row in table.values() if metric in row.get(variant, {})]
            if len(values) == len(table):
                cells.setdefault(variant, {})[metric] = {"mean": float(np.mean(values)), "n": len(values)}
    return {"data": list(table), "cells": cells}


def show(table, metrics=("ACC", "NMI"), title=""):
    """Print {data: {variant: {metric: cell}}} once a metric, with the mean of the data sets as the last entry.

    A line a data set; with many variants a line a variant.
    """
    variants, lines = methods(table), {**table, **({"mean": average(table)["cells"]} if len(table) > 1 else {})}
    for metric in metrics:
        rows = [[data, *(common.cell(row.get(v, {}).get(metric)) for v in variants)] for data, row in lines.items()]
        rows = [[metric, *variants], *rows]
        if len(variants) > 6:
            rows = list(zip(*rows))
        common.print_table(rows[0], rows[1:], title)


def paired(runs, control, metric="ACC"):
    """{variant: {"mean_difference", "std", "worse", "equal", "better"}}: variant minus control, run by run.

    Over the (data, seed) pairs that both have; std is over the pairs.
    """
    at = {(r["data"], r["seed"], r["variant"]): r[metric] for r in runs}
    out = {}
    for variant in dict.fromkeys(r["variant"] for r in runs):
        d = np.array([value - at[data, seed, control] for (data, seed, v), value in at.items()
                      if v == variant and (data, seed, control) in at])
        if variant != control and len(d):
            out[variant] = {"mean_difference": float(d.mean()), "std": float(d.std()), "worse": int((d < 0).sum()),
                            "equal": int((d == 0).sum()), "better": int((d > 0).sum())}
    return out


def finish(store, control=None, metrics=(*common.METRICS, "kept"), shown=("ACC", "NMI"), **extra):
    """Print and save the table of the runs, its means over the data sets and, with a control, paired differences."""
    table = common.summary(store.runs, metrics)
    show(table, shown)
    difference = {m: paired(store.runs, control, m) for m in ("ACC", "NMI")} if control else {}
    if difference:
        text = lambda d: [f"{d['mean_difference']:+.3f} ± {d['std']:.3f}",  # noqa: E731
                          f"{d['worse']} / {d['equal']} / {d['better']}"]
        common.print_table([f"against {control}", *(h for m in difference for h in (m, "worse / equal / better"))],
                           [[v, *(t for m in difference for t in text(difference[m][v]))]
                            for v in difference["ACC"]], "Run by run, over data sets and seeds")
    store.finish(table=table, average=average(table)["cells"], **({"paired": difference} if control else {}), **extra)
    return table


# ---------------------------------------------------------------- pictures

def dots(axis, table, metric, variants=None, hollow=(), styles=None):
    """One line a data set, one mark a variant at the mean of `metric`, its std as a bar; the caller adds a legend.

    styles: {variant: (colour, marker)}, needed for more variants than there are colours.
    """
    variants, data = variants or methods(table), list(table)
    styles = styles or dict(zip(variants, zip(common.COLOURS, MARKERS)))
    for k, variant in enumerate(variants):
        at = [(y + 0.7 * ((k + 0.5) / len(variants) - 0.5), row[variant][metric])
              for y, row in enumerate(table.values()) if metric in row.get(variant, {})]
        colour, marker = styles[variant]
        axis.errorbar([c["mean"] for _, c in at], [y for y, _ in at], xerr=[c.get("std", 0) for _, c in at],
                      fmt=marker, color=colour, markersize=6, elinewidth=1, capsize=0, zorder=3,
                      markerfacecolor="white" if variant in hollow else colour, label=variant)
    axis.set(yticks=range(len(data)), yticklabels=data, ylim=(len(data) - 0.45, -0.55), xlabel=metric)
    axis.grid(visible=False, axis="y")
    for y in range(1, len(data)):
        axis.axhline(y - 0.5, color="#dddddd", lw=0.8, zorder=0)


def legend(figure, axis, ncols=4):
    """One legend for the whole figure, below it."""
    figure.legends.clear()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=ncols)

def panels(figure, axes, table, metrics=("ACC", "NMI"), **options):
    """`dots` of several metrics side by side, the mean of the data sets as a last line."""
    if len(table) > 1:
        table = {**table, "mean": average(table)["cells"]}
    for k, (axis, metric) in enumerate(zip(axes, metrics)):
        dots(axis, table, metric, **options)
        if k:
            axis.set(yticklabels=[])
    legend(figure, axes[0])


def height(table, variants):
    """Inches that a picture of `dots` needs."""
    return 1.5 + (len(table) + (len(table) > 1)) * max(0.45, 0.11 * variants)


def curves(figure, axes, table, values, metrics, xlabel, current=None):
    """One panel a metric: its mean over `values` ({variant: x}), one thin line a data set and a thick one for all.

    current: the default's x, marked.
    """
    for axis, metric in zip(axes, metrics):
        for k, (data, row) in enumerate(table.items()):
            at = [(x, row[v][metric]["mean"]) for v, x in values.items() if metric in row.get(v, {})]
            axis.plot(*zip(*at), color=common.COLOURS[k % 6], marker=MARKERS[k % len(MARKERS)], markersize=4,
                      lw=1.2, label=data)
        if len(table) > 1:
            mean = average(table)["cells"]
            at = [(x, mean[v][metric]["mean"]) for v, x in values.items() if metric in mean.get(v, {})]
            axis.plot(*zip(*at), color="black", lw=3, label="mean")
        if current is not None:
            axis.axvline(current, color="#444444", lw=1.2, ls="--", label="default", zorder=1)
        axis.set(xlabel=xlabel, ylabel=metric if metric != "kept" else "share of values kept")
    legend(figure, axes[0])


def log_axis(axis, ticks):
    """A logarithmic x-axis with these ticks, written as plain numbers."""
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()


def epoch_axis(axis, epochs):
    """A logarithmic axis of 1 to `epochs`."""
    log_axis(axis, [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= epochs])
    axis.set_xlabel("epoch")
