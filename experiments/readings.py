"""What the finished runs of table2.py say; nothing is trained. Each is a table and a picture.

    python experiments/readings.py                 # results/<reading>.json, figures/<reading>.png
    python experiments/readings.py protocol        # one of them

convergence  do the losses fall (the paper's Fig. 4), when do the labels settle?
stability    how far do epochs and seeds agree, and does that foretell ACC? Without true labels.
protocol     the last epoch, the epoch with the best ACC by the true labels (how the paper and its
             code read theirs), the best of 201 random labelings, and the paper's number
"""

import sys

import numpy as np
import store
import tables
from table2 import LUCK, ORACLE, PAPER

from support.report import agreement

TERMS = {
    "total": "total loss, Eq. (13)",
    "contra": "contra, Eq. (10)",
    "intra": "intra, Eq. (5)",
    "inter": "inter, Eq. (6)",
    "kept": "share of values kept",
    "label_change": "labels changed",
}


def curve(runs, name):
    """(seeds, epochs) of one data set's runs; a run that ended early keeps its last value."""
    rows = [r["curves"][name] for r in runs]
    longest = max(map(len, rows))
    return np.array([row + row[-1:] * (longest - len(row)) for row in rows], dtype=float)


def plot(axis, own, name, title):
    """The mean and the range over the seeds of one curve, one line a data set, on log epochs."""
    for data, runs in own.items():
        values = curve(runs, name)
        x = np.arange(1, values.shape[1] + 1)
        (line,) = axis.plot(x, values.mean(0), lw=1.4, label=data)
        axis.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=0.15)
    axis.set(title=title, xscale="log", xlabel="epoch")


def convergence(own, cells):
    """First and last value of each term, and how often the total rose."""
    facts = {}
    for data, runs in own.items():
        mean = {name: curve(runs, name).mean(0) for name in TERMS}
        facts[data] = {n: [float(v[0]), float(v[-1])] for n, v in mean.items()}
        facts[data]["epochs"] = [r["epochs"] for r in runs]
        facts[data]["rises"] = float((np.diff(mean["total"]) > 0).sum() / len(mean["total"]))

    def draw(figure, axes):
        for axis, (name, title) in zip(axes.flat, TERMS.items()):
            plot(axis, own, name, title)
        tables.legend(figure, axes.flat[0])

    rows = []
    for data, f in facts.items():
        ends = [f"{f[n][0]:.3f} to {f[n][1]:.3f}" for n in TERMS]
        rows.append([data, f["epochs"], *ends, f"{f['rises']:.0%}"])
    heads = ["data", "epochs run", *TERMS, "total rose in"]
    return facts, heads, rows, draw, {"nrows": 2, "ncols": 3}


def stability(own, cells):
    """ARI between seeds and its correlation with ACC; how many labels still change, till when."""
    facts = {}
    for data, runs in own.items():
        facts[data] = {
            "agreement": agreement([r["labels"] for r in runs]),
            "label_change": float(np.mean([r["label_change"] for r in runs])),
            "ACC": float(np.mean([r["ACC"] for r in runs])),
            "settled_at": [settled(r["curves"]["label_change"]) for r in runs],
        }
    rows = [[d, *(number(f[n]) for n in ("agreement", "label_change", "ACC")), f["settled_at"]]
            for d, f in facts.items()]  # fmt: skip
    r = facts["correlation"] = foretells(list(facts.values()))
    rows.append(["agreement and ACC", f"r = {r['r']:.2f}" if r else "-", "", "", ""])

    def draw(figure, axes):
        plot(axes[0], own, "label_change", "Share of labels changed in an epoch")
        for data in own:
            axes[1].plot(facts[data]["agreement"] or np.nan, facts[data]["ACC"], "o")
        title = "ACC over the seeds' agreement (ARI)"
        axes[1].set(title=title, xlim=(0, 1.03), ylim=(0, 1.03))
        tables.legend(figure, axes[0])

    heads = ["data", "seeds agree (ARI)", "labels changing", "ACC", "settled at"]
    return facts, heads, rows, draw, {"ncols": 2, "height": 4.2}


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
    shown = ("EMTC", ORACLE, LUCK, PAPER)
    looks = {data: {k: cells[data][k] for k in shown if k in cells[data]} for data in own}
    facts, rows = {}, []
    for data, row in looks.items():
        last, best, luck, paper = (row[k]["ACC"]["mean"] if k in row else np.nan for k in shown)
        gains = {"selection": best - last, "above_luck": last - luck}
        facts[data] = {**gains, "paper_above_luck": paper - luck}
        at = [f"{r['oracle']['epoch']} of {r['epochs']}" for r in own[data]]
        gains = [f"{v:+.3f}" if np.isfinite(v) else "-" for v in facts[data].values()]
        rows.append([data, *gains, ", ".join(at)])
    facts["mean"] = {"selection": np.mean([f["selection"] for f in facts.values()])}

    def draw(figure, axis):
        tables.bars(axis, looks, LUCK)
        tables.dots(axis, looks, "ACC", hollow=(ORACLE, PAPER))
        axis.set(xlim=(0, 1.02), title="Hollow: epoch picked by the true labels; grey: luck floor")
        tables.legend(figure, axis)

    heads = ["data", "selection adds", "last above luck", "paper above luck", "best epoch at"]
    return facts, heads, rows, draw, {"height": 1.8 + 0.55 * len(looks)}


def number(value):
    """The number as text, a dash for None."""
    return "-" if value is None else f"{value:.3f}"


READINGS = {f.__name__: f for f in (convergence, stability, protocol)}


def main(argv=None):
    """Read results/table2.json; print, save, draw each reading asked for."""
    which = {"nargs": "*", "choices": [*READINGS, []], "default": [], "help": "default: all"}
    args = store.arguments("readings", __doc__, argv, options={"readings": which})
    source = args.out / "table2.json"
    saved = tables.read_json(source)
    runs = [r for r in saved.get("runs", []) if r["variant"] == "EMTC" and r["epochs"]]
    if not runs or "table" not in saved:
        raise store.UserError(f"{source} has no finished runs: run experiments/table2.py first")
    own = {d: [r for r in runs if r["data"] == d] for d in dict.fromkeys(r["data"] for r in runs)}
    for name in args.readings or READINGS:
        facts, heads, rows, draw, shape = READINGS[name](own, saved["table"])
        text = tables.print_table(heads, rows, f"{name}: {READINGS[name].__doc__}")
        made = {"read_from": source.name, "read_hash": tables.file_hash(source)}
        content = {"experiment": name, **made, "table": facts, "text": [text]}
        store.write_json(args.out / f"{name}.json", content)
        args.name = name
        tables.picture(args, draw, **{"height": 6.0, **shape})


if __name__ == "__main__":
    sys.exit(store.run_main(main))
