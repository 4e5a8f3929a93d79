"""What the finished runs of table2.py say; nothing is trained. Each is a table and a picture.

    python experiments/readings.py protocol        # or convergence, stability; without a name all

convergence  do the losses fall (the paper's Fig. 4), when do the labels settle?
stability    how far do the seeds agree, and does that foretell ACC? Without true labels.
protocol     the last epoch, the epoch with the best ACC by the true labels (how the paper and its
             code read theirs), the best of 201 random labelings, and the paper's number
"""

import sys

import numpy as np
import store
import tables
from table2 import LUCK, ORACLE, PAPER

from support.report import agreement

TERMS = ("total", "contra", "intra", "inter", "kept", "label_change")


def curve(runs, name):
    """(seeds, epochs) of one data set's runs; a run that ended early keeps its last value."""
    rows = [r["curves"][name] for r in runs]
    longest = max(map(len, rows))
    return np.array([row + row[-1:] * (longest - len(row)) for row in rows], dtype=float)


def plot(axis, own, name, title):
    """The mean and the range over the seeds of one curve, one line a data set, on log epochs."""
    for k, (data, runs) in enumerate(own.items()):
        colour, marker = tables.look(k)
        values = curve(runs, name)
        x = np.arange(1, values.shape[1] + 1)
        mark = {"marker": marker, "markevery": [-1], "markersize": 5}  # at the line's end
        axis.plot(x, values.mean(0), color=colour, lw=1.4, label=data, **mark)
        axis.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.15)
    axis.set(title=title, xscale="log", xlabel="epoch")


# Each reading: (own runs by data set, Table 2) -> {data: {column: value}}, what else was found,
# draw(axes), the shape of the picture.


def convergence(own, cells):
    """First and last value of each term, and the share of epochs in which the total rose."""
    facts = {}
    for data, runs in own.items():
        mean = {name: curve(runs, name).mean(0) for name in TERMS}
        facts[data] = {"epochs": [r["epochs"] for r in runs]}
        facts[data] |= {n: [float(v[0]), float(v[-1])] for n, v in mean.items()}
        facts[data]["total rose"] = float((np.diff(mean["total"]) > 0).sum() / len(mean["total"]))

    def draw(axes):
        for axis, name in zip(axes.flat, TERMS):
            plot(axis, own, name, name)

    return facts, {}, draw, {"nrows": 2, "ncols": 3, "height": 6.0}


def stability(own, cells):
    """How far the seeds agree (ARI), how many labels change, after which epoch at most 1 %."""
    facts = {}
    for data, runs in own.items():
        facts[data] = {
            "agreement": agreement([r["labels"] for r in runs]),
            "label_change": float(np.mean([r["label_change"] for r in runs])),
            "ACC": float(np.mean([r["ACC"] for r in runs])),
            "settled at": [settled(r["curves"]["label_change"]) for r in runs],
        }

    def draw(axes):
        plot(axes[0], own, "label_change", "Share of labels changed in an epoch")
        for k, data in enumerate(own):
            colour, marker = tables.look(k)
            at = facts[data]["agreement"] or np.nan, facts[data]["ACC"]
            axes[1].plot(*at, marker, color=colour)
        title = "ACC over the seeds' agreement (ARI)"
        axes[1].set(title=title, xlim=(0, 1.03), ylim=(0, 1.03))

    return facts, {"correlation": foretells(facts.values())}, draw, {"ncols": 2, "height": 4.2}


def settled(changes, share=0.01):
    """The first epoch after which at most this share of the labels changes in each."""
    return 1 + max((e for e, c in enumerate(changes, 1) if c > share), default=0)


def foretells(facts):
    """Pearson's r of agreement and ACC over the data sets, its range leaving one out, or None."""
    at = np.array([(f["agreement"], f["ACC"]) for f in facts if f["agreement"] is not None]).T
    if at.shape[-1] < 4 or at.std(1).min() == 0:
        return None
    less = [np.corrcoef(np.delete(at, k, 1))[0, 1] for k in range(at.shape[1])]
    return {"r": np.corrcoef(at)[0, 1], "without_one": [min(less), max(less)]}


def protocol(own, cells):
    """What picking the epoch by the labels adds, the luck floor, the paper's number."""
    shown, facts = ("EMTC", ORACLE, LUCK, PAPER), {}
    looks = {data: {k: cells[data][k] for k in shown if k in cells[data]} for data in own}
    for data, row in looks.items():
        last, best, luck, paper = (row[k]["ACC"]["mean"] if k in row else np.nan for k in shown)
        gains = {"selection": best - last, "above_luck": last - luck}
        at = [f"{r['oracle']['epoch']} of {r['epochs']}" for r in own[data]]
        facts[data] = {**gains, "paper_above_luck": paper - luck, "best epoch": at}
    mean = float(np.mean([f["selection"] for f in facts.values()]))

    def draw(axis):
        tables.bars(axis, looks, LUCK)
        tables.dots(axis, looks, "ACC", hollow=(ORACLE, PAPER))
        axis.set(xlim=(0, 1.02), title="Hollow: epoch picked by the true labels; grey: luck floor")

    return facts, {"mean_selection": mean}, draw, {"height": 1.8 + 0.55 * len(looks)}


def written(value):
    """A cell as text: numbers of three digits, lists side by side, a dash for what is not known."""
    if isinstance(value, list):
        return ", ".join(map(written, value))
    if isinstance(value, float):
        return f"{value:.3f}" if np.isfinite(value) else "-"
    return "-" if value is None else str(value)


READINGS = {f.__name__: f for f in (convergence, stability, protocol)}


def main(argv=None):
    """Read results/table2.json; print, save, draw each reading asked for."""
    which = {"nargs": "*", "choices": [*READINGS, []], "default": [], "help": "default: all"}
    args = store.arguments("readings", __doc__, argv, options={"readings": which})
    source = args.out / "table2.json"
    saved, own = tables.read_json(source), {}
    for run in saved.get("runs", []):
        if run["variant"] == "EMTC" and run["epochs"]:
            own.setdefault(run["data"], []).append(run)
    if not own or "table" not in saved:
        raise store.UserError(f"{source} has no finished runs: run experiments/table2.py first")
    made = {"read_from": source.name, "read_hash": tables.file_hash(source)}
    for name in args.readings or READINGS:
        facts, more, draw, shape = READINGS[name](own, saved["table"])
        rows = [[data, *map(written, f.values())] for data, f in facts.items()]
        heads = ["data", *next(iter(facts.values()))]
        text = [tables.print_table(heads, rows, f"{name}: {READINGS[name].__doc__}")]
        print(*(f"\n{key}: {value}" for key, value in more.items()))
        content = {"experiment": name, **made, "table": facts, **more, "text": text}
        store.write_json(args.out / f"{name}.json", content)
        args.name = name
        tables.picture(args, draw, **shape)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
