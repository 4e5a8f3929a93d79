"""How much of a published number is selection? The same runs read three ways, beside the paper's number.

The last epoch (what a user gets), the epoch with the best ACC by the true labels (how the paper and its code read
theirs), and the best of 201 random labelings with these class sizes (what that way of reading gives to chance).
The runs are those of table2.py.

    python experiments/protocol.py
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

import common
import recorded
import studies

PUBLISHED = Path(__file__).with_name("published.json")
LAST, BEST, LUCK, PAPER = "last epoch", "best epoch by labels", "best of 201 random", "paper's EMTC"


def run(args, dataset, variant, seed):
    """The record of a run, or the luck floor, which has no seed of its own."""
    if variant == LAST:
        return recorded.without(recorded.run(args, dataset, seed), "labels")
    mean, std = common.luck_floor(dataset.y, sizes=True)
    return {"ACC": mean, "std": std}


def readings(runs, published):
    """{data: {reading: {"ACC": cell}}} and {data: numbers on the selection}."""
    table, gains = {}, {}
    for data in sorted({r["data"] for r in runs}, key=common.cost):
        own = [r for r in runs if (r["data"], r["variant"]) == (data, LAST)]
        luck = next(r for r in runs if (r["data"], r["variant"]) == (data, LUCK))
        both = [{"data": data, "variant": LAST, "ACC": r["ACC"]} for r in own] + \
               [{"data": data, "variant": BEST, "ACC": r["oracle"]["ACC"]} for r in own]
        table[data] = {**common.summary(both, ["ACC"])[data], LUCK: {"ACC": {"mean": luck["ACC"], "std": luck["std"]}}}
        if data in published:
            table[data][PAPER] = {"ACC": dict(zip(("mean", "std"), published[data]["ACC"]["EMTC"]))}
        last, best = (table[data][v]["ACC"]["mean"] for v in (LAST, BEST))
        gains[data] = {"selection": best - last, "above_luck_last": last - luck["ACC"],
                       "above_luck_best": best - luck["ACC"], "best_at": [r["oracle"]["epoch"] for r in own],
                       "epochs": [r["epochs"] for r in own],
                       "lowest_epoch": [min([r["ACC"], *r["curves"]["ACC"]]) for r in own]}
        if data in published:
            gains[data]["paper_above_luck"] = table[data][PAPER]["ACC"]["mean"] - luck["ACC"]
    return table, gains


def draw(figure, axis, table):
    """ACC read in each way, one line a data set."""
    blue, vermilion = common.COLOURS[:2]
    styles = {LAST: (blue, "o"), BEST: (blue, "D"), PAPER: (vermilion, "D"), LUCK: ("#666666", "|")}
    for y, row in enumerate(table.values()):
        axis.barh(y, row[LUCK]["ACC"]["mean"], height=0.86, color="#e8e8e8", zorder=0)
    studies.dots(axis, table, "ACC", [LAST, BEST, PAPER, LUCK], hollow=(BEST, PAPER), styles=styles)
    axis.set(xlim=(0, 1.02), title="One run, read three ways (hollow: epoch picked by the true labels;\n"
                                   "grey: what picking the best of 201 gives to random labelings)")
    studies.legend(figure, axis)


def main(argv=None):
    """Train or look up, print, save, draw; returns 0."""
    args = common.arguments("protocol", __doc__, argv, seeds=range(5))
    store = common.Store(args, code=recorded.CODE, **recorded.settings(args))
    common.sweep(store, Namespace(**{**vars(args), "seeds": [0]}), [LUCK], lambda *work: run(args, *work))
    common.sweep(store, args, [LAST], lambda *work: run(args, *work))
    table, gains = readings(store.runs, json.loads(PUBLISHED.read_text(encoding="utf-8"))["table2"]["results"])
    store.finish(table=table, selection=gains, average=studies.average(table)["cells"])
    studies.show(table, ["ACC"])
    common.print_table(["data", "selection adds", "last epoch above luck", "paper above luck", "best epoch at"],
                       [[data, f"{g['selection']:+.3f}", f"{g['above_luck_last']:+.3f}",
                         f"{g['paper_above_luck']:+.3f}" if "paper_above_luck" in g else "-",
                         ", ".join(f"{b} of {e}" for b, e in zip(g["best_at"], g["epochs"]))]
                        for data, g in gains.items()])
    common.picture(args, lambda figure, axis: draw(figure, axis, table), height=1.8 + 0.55 * len(table))
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
