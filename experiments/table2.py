"""The paper's comparison (Table 2) at the last epoch: EMTC, what needs no training, the paper.

EMTC, also at the epoch with the best ACC by the true labels, which is how the paper chose its
numbers; as printed; untrained; simple methods (baselines.py); those of related/, each also
untrained; the luck floor, the best of 201 random labelings with these class sizes; the paper's EMTC
and the best of its eight rivals. On the test split of each data set found, five seeds.

    python experiments/table2.py                  # results/table2.json, figures/table2.png
    python experiments/table2.py --methods        # without related/ (or: --methods SimMTM)
"""

import importlib
import importlib.util
import sys

import baselines
import numpy as np
import store
import study
import tables

from metrics import accuracy, scores

ORACLE, LUCK, PAPER, RIVAL = "EMTC oracle epoch", "luck floor", "paper's EMTC", "paper's best other"
UNTRAINED = " untrained"  # ends the name of a method of related/ at epochs=0
OPTIONS = {
    "EMTC": {},
    "EMTC as printed": {"as_printed": True},
    "untrained encoders": study.UNTRAINED,
}
RELATED = {"SimMTM": "simmtm", "NCVQVAE": "nc_vqvae", "MUG": "mug"}
BASELINES = {
    "raw k-means": baselines.raw_kmeans,
    "random kernels, unit": baselines.kernel_kmeans,
    "DTW k-means": baselines.dtw_kmeans,
}
SHOWN = ("EMTC", ORACLE, PAPER, "EMTC as printed", "untrained encoders", "raw k-means",
         "DTW k-means", "random kernels, unit", "SimMTM")  # fmt: skip


def luck_floor(y, seed, draws=201):
    """The best ACC of so many random labelings: the classes y (N,), shuffled.

    What picking the best of 201 epochs by their true labels gives to a method that knows nothing.
    """
    rng = np.random.default_rng(seed)
    return max(accuracy(y, rng.permutation(y)) for _ in range(draws))


def with_controls(methods):
    """Each method of related/ and the same method untrained."""
    return [name for method in methods for name in (method, method + UNTRAINED)]


def run(args, dataset, variant, seed):
    """One record of one method; labels enter after it has ended."""
    if dataset.y is None:
        raise store.UserError(f"{dataset.name} has no labels: there is nothing to score")
    if variant in OPTIONS:
        return store.run(args, dataset, seed, **OPTIONS[variant])
    if variant == LUCK:
        return {"ACC": luck_floor(dataset.y, seed)}
    g, method = len(dataset.classes), variant.removesuffix(UNTRAINED)
    if method in RELATED:
        options = {"epochs": 0} if variant != method else {"epochs": 3} if args.quick else {}
        estimator = getattr(importlib.import_module(f"related.{RELATED[method]}"), method)
        labels = estimator(g, seed=seed, **options).fit_predict(dataset.X)
    else:
        labels = BASELINES[method](dataset.X, g, seed)
    return {**scores(dataset.y, labels), "labels": labels}


def table(runs, published):
    """{data: {method: {metric: cell}}}: all methods, the oracle, the luck floor and the paper's."""
    own = [r for r in runs if r["variant"] == "EMTC"]
    oracle = [{"data": r["data"], "variant": ORACLE, **r["oracle"]} for r in own]
    order = ["EMTC", ORACLE, *list(OPTIONS)[1:], *BASELINES, *with_controls(RELATED), LUCK]
    cells, out = tables.summary([*runs, *oracle]), {}
    for name, found in cells.items():
        row = out[name] = {m: found[m] for m in order if m in found}
        for metric, values in published.get(name, {}).items():
            best = max((m for m in values if m != "EMTC"), key=lambda m: values[m][0])
            for label, method in ((PAPER, "EMTC"), (RIVAL, best)):
                cell = dict(zip(("mean", "std"), values[method]))
                row.setdefault(label, {})[metric] = {**cell, "method": method}
    return out


def draw(axis, cells):
    """ACC of each method on each data set; hollow: picked by the labels."""
    shown = [m for m in SHOWN if m in tables.methods(cells)]
    tables.bars(axis, cells, LUCK)
    tables.dots(axis, cells, "ACC", shown, hollow=(ORACLE, PAPER))
    axis.set(xlim=(0, 1.02), title="ACC; hollow: epoch picked by the labels; grey: luck floor")


def main(argv=None):
    """Fill what is missing, print, save, draw."""
    methods = {"nargs": "*", "choices": [*RELATED], "default": [*RELATED], "help": "of related/"}
    args = store.arguments("table2", __doc__, argv, seeds=range(5), options={"--methods": methods})
    code = (*store.CODE, "experiments/baselines", *(f"related/{m}" for m in RELATED.values()))
    box = store.Store(args, code=code)
    every = [LUCK, *OPTIONS, *BASELINES, *with_controls(args.methods)]
    if not importlib.util.find_spec("aeon"):
        print("without the row DTW k-means: pip install aeon")
        every.remove("DTW k-means")
    store.sweep(box, args, every, lambda *work: run(args, *work))
    cells = table(box.runs, store.PAPER["table2"]["results"])
    ours = {d: {m: c for m, c in row.items() if m not in (PAPER, RIVAL)}
            for d, row in cells.items()}  # fmt: skip
    theirs = {d: row for d, row in cells.items() if PAPER in row}
    averages = {"mean of all": tables.average(ours), "mean of the paper's": tables.average(theirs)}
    text = tables.show(cells, tables.METRICS)
    missing = [d for d in store.PAPER["table1"]["datasets"] if d not in cells]
    print(f"\nof the paper's fifteen data sets not at hand: {', '.join(missing) or 'none'}")
    paired = tables.paired(box.runs, "untrained encoders")
    more = {"seconds": tables.summary(box.runs, ["seconds"]), "missing": missing, "text": text}
    box.finish(table=cells, averages=averages, paired=paired, **more)
    tables.picture(args, lambda axis: draw(axis, cells), height=1.6 + 0.85 * len(cells))


if __name__ == "__main__":
    sys.exit(store.run_main(main))
