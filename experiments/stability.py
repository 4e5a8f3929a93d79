"""How stable are the clusters? From epoch to epoch, and from seed to seed; no true labels are needed for either.

Label changes and ARI between consecutive epochs, ARI between the seeds' last labelings, and whether the seeds'
agreement foretells the accuracy: the runs of table2.py.

    python experiments/stability.py
"""

import sys

import numpy as np

import common
import convergence
import recorded
import studies


def facts(runs):
    """{data: {"agreement", "step_ari", "label_change", "settled_at", "ACC"}}, means over the seeds."""
    out = {}
    for data in dict.fromkeys(r["data"] for r in runs):
        own = [r for r in runs if r["data"] == data]
        # cluster numbers carry over from one epoch to the next, so a change is a sample that moved
        settled = [1 + max((e + 1 for e, c in enumerate(r["curves"]["label_change"]) if c > 0.01), default=0)
                   for r in own]
        steps = [a for r in own for a in r["curves"]["step_ari"][-recorded.LAST:] if a is not None]
        out[data] = {"agreement": recorded.agreement([r["labels"] for r in own]),
                     "step_ari": float(np.mean(steps)) if steps else None,
                     "label_change": float(np.mean([r["label_change"] for r in own])),
                     "settled_at": settled, "epochs": [r["epochs"] for r in own],
                     "ACC": float(np.mean([r["ACC"] for r in own])), "std": float(np.std([r["ACC"] for r in own]))}
    return out


def foretells(table):
    """Pearson correlation over the data sets of the seeds' agreement with ACC; None for fewer than three."""
    pairs = np.array([(f["agreement"], f["ACC"]) for f in table.values() if f["agreement"] is not None]).T
    return float(np.corrcoef(pairs)[0, 1]) if pairs.shape[-1] > 2 and pairs.std(1).min() > 0 else None


def draw(figure, axes, runs, table):
    """Label changes and ARI over the epochs; agreement of the seeds against ACC."""
    for k, (data, f) in enumerate(table.items()):
        colour = common.COLOURS[k % len(common.COLOURS)]
        for axis, name, low in ((axes[0], "label_change", 0), (axes[1], "step_ari", 1)):
            rows = convergence.curve(runs, data, name)[:, low:]
            axis.plot(np.arange(1 + low, rows.shape[1] + 1 + low), rows.mean(0), color=colour, lw=1.4, label=data)
        if f["agreement"] is not None:
            axes[2].errorbar(f["agreement"], f["ACC"], yerr=f["std"], fmt=studies.MARKERS[k % 8], color=colour,
                             markersize=7, elinewidth=1)
    for axis in axes[:2]:
        studies.epoch_axis(axis, max(r["epochs"] for r in runs))
    axes[0].set(title="Labels changed in an epoch", ylim=(0, None), ylabel="share of samples")
    axes[1].set(title="Agreement with the epoch before", ylim=(None, 1.02), ylabel="ARI")
    axes[2].set(title="Agreement between seeds", xlabel="mean pairwise ARI of the seeds", ylabel="ACC",
                xlim=(0, 1.03), ylim=(0, 1.03))
    studies.legend(figure, axes[0])


def main(argv=None):
    """Train or look up, print, save, draw; returns 0."""
    args = common.arguments("stability", __doc__, argv, seeds=range(5), quick_seeds=(0, 1))
    store = studies.fill(args, {"EMTC": {}}, drop=("oracle",))
    if not all(run["epochs"] for run in store.runs):
        raise common.UserError("--epochs 0 has nothing to compare; give 1 or more")
    table = facts(store.runs)
    together = foretells(table)
    store.finish(table=table, correlation_of_agreement_and_ACC=together)
    number = lambda v: "-" if v is None else f"{v:.3f}"  # noqa: E731
    common.print_table(["data", "ARI between seeds", f"ARI between the last {recorded.LAST} epochs",
                        "labels changing an epoch", "under 1 % from epoch", "epochs run", "ACC"],
                       [[data, number(f["agreement"]), number(f["step_ari"]), number(f["label_change"]),
                         ", ".join(map(str, f["settled_at"])), ", ".join(map(str, f["epochs"])), number(f["ACC"])]
                        for data, f in table.items()])
    print(f"\ncorrelation of the seeds' agreement with ACC over {len(table)} data sets: {number(together)}")
    common.picture(args, lambda figure, axes: draw(figure, axes, store.runs, table), height=3.9, width=10, ncols=3)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
