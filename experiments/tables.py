"""Tables and pictures of records: means over seeds, differences run by run, dots by data set.

A record is a dict with data, variant, seed and scores; a table is {data: {variant: {metric:
{"mean", "std", "n"}}}}. std is the population's (ddof = 0), 0 for one seed.
"""

import hashlib
import json
import re

import numpy as np

METRICS = ("ACC", "F1", "NMI", "ARI")
# Okabe and Ito's palette, told apart by colour-blind readers; the order is the order of use.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP*X"


class UserError(ValueError):
    """A mistake of the caller: its message is printed as one line, without a traceback."""


def read_json(path):
    """What a JSON file of the experiments holds, {} where there is none; UserError if broken."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError):
        raise UserError(f"{path} is not readable: move it away") from None


def summary(runs, metrics=METRICS):
    """{data: {variant: {metric: {"mean", "std", "n"}}}} over the seeds, in the runs' order."""
    values = {}
    for run in runs:
        cell = values.setdefault(run["data"], {}).setdefault(str(run["variant"]), {})
        for metric in metrics:
            if run.get(metric) is not None:
                cell.setdefault(metric, []).append(run[metric])
    return {data: {variant: {m: {"mean": float(np.mean(v)), "std": float(np.std(v)), "n": len(v)}
                             for m, v in cell.items()} for variant, cell in row.items()}
            for data, row in values.items()}  # fmt: skip


def methods(table):
    """The variants of {data: {variant: ...}} in the order of their first appearance."""
    return list(dict.fromkeys(variant for row in table.values() for variant in row))


def average(table):
    """{variant: {metric: {"mean", "n"}}}: the mean of the data sets' means, n data sets.

    Only of a variant that has the metric on every data set, so that all are over the same ones.
    """
    cells = {}
    for variant in methods(table):
        rows = [row.get(variant, {}) for row in table.values()]
        for metric in rows[0]:
            if all(metric in row for row in rows):
                mean = float(np.mean([row[metric]["mean"] for row in rows]))
                cells.setdefault(variant, {})[metric] = {"mean": mean, "n": len(rows)}
    return cells


def with_mean(table):
    """The table and, of more than one data set, a last row "mean"."""
    return {**table, **({"mean": average(table)} if len(table) > 1 else {})}


def paired(runs, control, metric="ACC"):
    """{variant: numbers on variant minus control}, run by run over the (data, seed) that both have:

    mean, n; se over all runs; se_sets, over the means of the data sets, which is the honest one
    where sets differ; by_data {data: mean}; worse, better: on how many runs.
    """
    runs = [r for r in runs if r.get(metric) is not None]
    at = {(r["data"], r["seed"], r["variant"]): r[metric] for r in runs}
    out = {}
    for variant in dict.fromkeys(r["variant"] for r in runs if r["variant"] != control):
        sets = {}
        for (data, seed, v), value in at.items():
            if v == variant and (data, seed, control) in at:
                sets.setdefault(data, []).append(value - at[data, seed, control])
        means = [float(np.mean(v)) for v in sets.values()]
        if sets:
            d = np.concatenate([*sets.values()])
            out[variant] = {"mean": float(np.mean(means)), "se": error(d), "se_sets": error(means),
                            "n": len(d), "worse": int((d < 0).sum()), "better": int((d > 0).sum()),
                            "by_data": dict(zip(sets, means))}  # fmt: skip
    return out


def error(values):
    """Standard error of the mean; None for fewer than two values."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def print_table(headers, rows, title=""):
    """Print `title` and the table as Markdown, a blank line before each; returns it as text."""
    cells = [[str(c) for c in row] for row in [headers, *rows]]
    width = [max(3, *(len(row[j]) for row in cells)) for j in range(len(headers))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width)) + " |" for row in cells]
    text = "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]])
    print("\n" + (title + "\n\n" if title else "") + text)
    return text


def cell(entry):
    """{"mean", "std"} as ".953 ± .012"; without std as ".953"; a dash where there is none."""
    if not entry:
        return "-"
    spread = f" ± {entry['std']:.3f}" if "std" in entry else ""
    return re.sub(r"\b0\.", ".", f"{entry['mean']:.3f}{spread}")


def show(table, metrics=("ACC", "NMI")):
    """Print a table once a metric, a line a data set, the mean of all last; returns the texts.

    With many variants it is a line a variant.
    """
    variants, text = methods(table), []
    for metric in metrics:
        rows = [[data, *(cell(row.get(v, {}).get(metric)) for v in variants)]
                for data, row in with_mean(table).items()]  # fmt: skip
        rows = [[metric, *variants], *rows]
        if len(variants) > 6:
            rows = list(zip(*rows))
        text.append(print_table(rows[0], rows[1:]))
    return text


def picture(args, draw, width=9.0, height=5.0, **subplots):
    """Call draw(axes) and save figures/<name>.png; without matplotlib, say how to get it.

    One legend below tells what the first panel labels.

    The file carries the hash of results/<name>.json, by which `run_all.py --check` knows an
    outdated one. 9 inches are shown about 830 px wide, so 10 pt text there is 13 px high.
    """
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install -r experiments/requirements.txt")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False,
             "axes.spines.right": False, "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
             "axes.grid": True, "grid.color": "#dddddd", "axes.axisbelow": True,
             "legend.frameon": False, "legend.fontsize": 9, "figure.dpi": 150}  # fmt: skip
    made_from = args.out / f"{args.name}.json"
    stamp = file_hash(made_from) if made_from.exists() else "none"
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **subplots)
        draw(axes)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
        args.figures.mkdir(parents=True, exist_ok=True)
        path = args.figures / f"{args.name}.png"
        figure.savefig(path, metadata={"Software": None, "Source": stamp})
        pyplot.close(figure)
    print(f"picture: {path}")


def file_hash(path):
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def look(k):
    """(colour, marker) number k: neighbours differ in both."""
    return COLOURS[k % 7], MARKERS[k % 8]


def dots(axis, table, metric, variants=None, hollow=()):
    """One line a data set, one mark a variant at the mean of `metric`, its std as a bar."""
    variants, data = variants or methods(table), list(table)
    for k, variant in enumerate(variants):
        cells = {y: row.get(variant, {}).get(metric) for y, row in enumerate(table.values())}
        cells = {y: cell for y, cell in cells.items() if cell}
        at = [y + 0.7 * ((k + 0.5) / len(variants) - 0.5) for y in cells]
        means, spread = ([c.get(k, 0) for c in cells.values()] for k in ("mean", "std"))
        colour, marker = look(k)
        face = "white" if variant in hollow else colour
        bars = {"xerr": spread, "fmt": marker, "color": colour, "markerfacecolor": face}
        axis.errorbar(means, at, label=variant, elinewidth=1, zorder=3, **bars)
    axis.set(yticks=range(len(data)), yticklabels=data, xlabel=metric)
    axis.set_ylim(len(data) - 0.45, -0.55)
    axis.grid(visible=False, axis="y")
    for y in range(1, len(data)):
        axis.axhline(y - 0.5, color="#dddddd", lw=0.8, zorder=0)


def bars(axis, table, variant):
    """Behind the dots, the mean ACC of one variant as a grey bar on each data set's line."""
    for y, row in enumerate(table.values()):
        if variant in row:
            axis.barh(y, row[variant]["ACC"]["mean"], height=0.86, color="#e8e8e8", zorder=0)


def panels(axes, table):
    """`dots` of ACC and NMI side by side, the mean of the data sets as a last line."""
    for axis, metric in zip(axes, ("ACC", "NMI")):
        dots(axis, with_mean(table), metric)
    axes[1].set(yticklabels=[])
