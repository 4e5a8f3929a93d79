"""Does training converge (the paper's Fig. 4)? Each loss term, the share kept and the label changes over the epochs.

The runs are those of table2.py. A run ends once at most 1 % of the labels changed in each of its last `patience` epochs.

    python experiments/convergence.py
"""

import sys

import numpy as np

import common
import recorded
import studies

PANELS = {"total": "total loss, Eq. (13)", "contra": "contra, Eq. (10)", "intra": "intra, Eq. (5)",
          "inter": "inter, Eq. (6)", "kept": "share of values kept", "label_change": "share of labels changed"}


def curve(runs, data, name):
    """(seeds, epochs) of one data set; a run that ended early keeps its last value."""
    rows = [r["curves"][name] for r in runs if r["data"] == data]
    longest = max(map(len, rows))
    return np.array([row + row[-1:] * (longest - len(row)) for row in rows], dtype=float)


def facts(runs, weights):
    """{data: numbers on its curves}; weights = (alpha, beta)."""
    out = {}
    for data in dict.fromkeys(r["data"] for r in runs):
        mean = {name: curve(runs, data, name).mean(0) for name in PANELS}
        total, parts = mean["total"], mean["contra"] + weights[0] * mean["intra"] + weights[1] * mean["inter"]
        out[data] = {"epochs": [r["epochs"] for r in runs if r["data"] == data],
                     **{f"{name}_{when}": float(mean[name][at]) for name in PANELS
                        for when, at in (("first", 0), ("last", -1))},
                     "lowest_total": float(total.min()), "lowest_at": int(total.argmin()) + 1,
                     "share_of_rises": float((np.diff(total) > 0).mean()) if len(total) > 1 else 0.0,
                     "sum_error": float(np.abs(total - parts).max())}
    return out


def draw(figure, axes, runs):
    """One panel a term, one line a data set: mean over the seeds, and their range."""
    for axis, (name, title) in zip(axes.flat, PANELS.items()):
        for k, data in enumerate(dict.fromkeys(r["data"] for r in runs)):
            rows, colour = curve(runs, data, name), common.COLOURS[k % len(common.COLOURS)]
            epochs = np.arange(1, rows.shape[1] + 1)
            axis.plot(epochs, rows.mean(0), color=colour, lw=1.4, label=data)
            axis.fill_between(epochs, rows.min(0), rows.max(0), color=colour, alpha=0.15, lw=0)
        axis.set(title=title, ylim=(0, None))
        studies.epoch_axis(axis, max(r["epochs"] for r in runs))
    studies.legend(figure, axes.flat[0])


def main(argv=None):
    """Train or look up, print, save, draw; returns 0."""
    args = common.arguments("convergence", __doc__, argv, seeds=range(5))
    store = studies.fill(args, {"EMTC": {}}, drop=("labels", "oracle"))
    if not all(run["epochs"] for run in store.runs):
        raise common.UserError("--epochs 0 has no curve to draw; give 1 or more")
    table = facts(store.runs, [recorded.defaults()[name] for name in ("alpha", "beta")])
    store.finish(table=table)
    ends = [f"{name}_{when}" for name in ("total", "contra", "intra", "inter", "kept") for when in ("first", "last")]
    common.print_table(["data", "epochs run", *(f"{name.split('_')[0]}: first to last" for name in ends[::2]),
                        "epochs in which the total rose"],
                       [[data, ", ".join(map(str, f["epochs"])),
                         *(f"{f[a]:.3f} to {f[b]:.3f}" for a, b in zip(ends[::2], ends[1::2])),
                         f"{100 * f['share_of_rises']:.0f} %"] for data, f in table.items()])
    common.picture(args, lambda figure, axes: draw(figure, axes, store.runs), height=6, nrows=2, ncols=3)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
