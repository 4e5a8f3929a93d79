"""The paper's comparison (Table 2) at the last epoch: EMTC, what needs no training, the paper.

For each data set found (test split, five seeds): EMTC; EMTC at the epoch with the best ACC by the
true labels, which is how the paper chose its numbers; as printed; untrained; k-means on raw values;
random kernels; DTW and MSM k-means, KASBA, where aeon is; SimMTM, NC-VQVAE and MUG (related/), each
also untrained; the luck floor, the best of 201 random labelings with these class sizes; the paper's
EMTC and the best of its eight rivals.

    python experiments/table2.py                  # results/table2.json, figures/table2.png
    python experiments/table2.py --methods        # without related/ (or: --methods SimMTM)
"""

import importlib
import importlib.util
import sys
from argparse import Namespace

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
    "random kernels": baselines.kernel_kmeans,
    "random kernels, unit": lambda X, g, seed: baselines.kernel_kmeans(X, g, seed, unit=True),
}
ELASTIC = {
    "DTW k-means": lambda X, g, seed: baselines.elastic_kmeans(X, g, seed, "dtw"),
    "MSM k-means": lambda X, g, seed: baselines.elastic_kmeans(X, g, seed, "msm"),
    "KASBA": baselines.kasba,
}
blue, vermilion, green, pink, orange, sky, black = tables.COLOURS[:7]
STYLE = {
    "EMTC": (blue, "o"), ORACLE: (blue, "o"), PAPER: (vermilion, "o"), "SimMTM": (black, "x"),
    "EMTC as printed": (blue, "s"), "untrained encoders": (green, "D"), "raw k-means": (pink, "^"),
    "DTW k-means": (orange, "v"), "random kernels, unit": (sky, "s"),
}  # fmt: skip


def luck_floor(y, draws=201, tries=12):
    """(mean, std) over `tries` of the best ACC of so many random labelings, y (N,) shuffled.

    What picking the best of 201 epochs by their true labels gives to a method that knows nothing.
    """
    rng, y = np.random.default_rng(0), np.asarray(y)
    best = [max(accuracy(y, rng.permutation(y)) for _ in range(draws)) for _ in range(tries)]
    return float(np.mean(best)), float(np.std(best))


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
        mean, std = luck_floor(dataset.y)
        return {"ACC": mean, "std": std, "tries": 12, "draws": 201}
    g, method = len(dataset.classes), variant.removesuffix(UNTRAINED)
    if method in RELATED:
        epochs = 0 if variant != method else 3 if args.quick else None
        options = {} if epochs is None else {"epochs": epochs}
        estimator = getattr(importlib.import_module(f"related.{RELATED[method]}"), method)
        labels = estimator(g, seed=seed, **options).fit_predict(dataset.X)
    else:
        labels = {**BASELINES, **ELASTIC}[method](dataset.X, g, seed)
    return {**scores(dataset.y, labels), "labels": labels}


# ---------------------------------------------------------------- the table


def table(runs, published):
    """{data: {method: {metric: cell}}}: all methods, the oracle, the luck floor and the paper's."""
    own = [r for r in runs if r["variant"] == "EMTC"]
    oracle = [{"data": r["data"], "variant": ORACLE, **r["oracle"]} for r in own]
    order = ["EMTC", ORACLE, *OPTIONS, *BASELINES, *ELASTIC, *with_controls(RELATED)]
    cells, out = tables.summary([*runs, *oracle]), {}
    for name in sorted(cells, key=store.cost):
        row = out[name] = {m: cells[name][m] for m in dict.fromkeys(order) if m in cells[name]}
        for r in runs:
            if (r["data"], r["variant"]) == (name, LUCK):
                row[LUCK] = {"ACC": {"mean": r["ACC"], "std": r["std"], "n": r["tries"]}}
        for metric, values in published.get(name, {}).items():
            best = max((m for m in values if m != "EMTC"), key=lambda m: values[m][0])
            for label, method in ((PAPER, "EMTC"), (RIVAL, best)):
                cell = dict(zip(("mean", "std"), values[method]))
                row.setdefault(label, {})[metric] = {**cell, "method": method}
    return out


def show(cells, averages):
    """Print and return the table (std of EMTC's seeds beside its means), and that of related/."""
    known = tables.methods(cells)
    others = [m for m in known if m != "EMTC" and not m.endswith(UNTRAINED)]
    lines = [*cells.items(), *averages.items()]
    rows = [[title, *(tables.cell(row.get("EMTC", {}).get(m)) for m in tables.METRICS),
             *(tables.cell(row.get(m, {}).get("ACC"), std=False) for m in others)]
            for title, row in lines]  # fmt: skip
    title = "EMTC at its last epoch, mean ± std (population's) over seeds; ACC of all others"
    text = [tables.print_table(["data", "EMTC ACC", *tables.METRICS[1:], *others], rows, title)]
    near = ("EMTC", "untrained encoders", *with_controls(RELATED), "raw k-means")
    near = [m for m in near if m in known]
    rows = [
        [title, *(tables.cell(row.get(m, {}).get("ACC")) for m in near)] for title, row in lines
    ]
    if set(RELATED) & set(near):
        text.append(tables.print_table(["data", *near], rows, "ACC of the neighbours in related/"))
    return text


def draw(figure, axis, cells):
    """ACC of each method on each data set; hollow: picked by the labels."""
    shown = [m for m in STYLE if m in tables.methods(cells)]
    tables.dots(axis, cells, "ACC", shown, hollow=(ORACLE, PAPER), styles=STYLE)
    for y, row in enumerate(cells.values()):
        if LUCK in row:
            axis.barh(y, row[LUCK]["ACC"]["mean"], height=0.86, color="#e8e8e8", zorder=0)
    axis.set(xlim=(0, 1.02), title="ACC; hollow: epoch picked by the labels; grey: luck floor")
    tables.legend(figure, axis)


def main(argv=None):
    """Fill what is missing, print, save, draw; returns 0."""
    methods = {"nargs": "*", "choices": [*RELATED], "default": [*RELATED], "help": "of related/"}
    args = store.arguments("table2", __doc__, argv, seeds=range(5), options={"--methods": methods})
    code = (*store.CODE, "experiments/baselines", *(f"related/{m}" for m in RELATED.values()))
    box = store.Store(args, code=code, **store.settings(args))
    once = Namespace(**{**vars(args), "seeds": [0]})
    elastic = list(ELASTIC) if importlib.util.find_spec("aeon") else []
    if not elastic:
        print(f"without the rows {', '.join(ELASTIC)}: pip install aeon")
    store.sweep(box, once, [LUCK], lambda *work: run(args, *work))
    every = [*OPTIONS, *BASELINES, *elastic, *with_controls(args.methods)]
    store.sweep(box, args, every, lambda *work: run(args, *work))
    cells = table(box.runs, store.PAPER["table2"]["results"])
    ours = {
        d: {m: c for m, c in row.items() if m not in (PAPER, RIVAL)} for d, row in cells.items()
    }
    theirs = {d: row for d, row in cells.items() if PAPER in row}
    averages = {"mean of all": tables.average(ours), "mean of the paper's": tables.average(theirs)}
    text = show(cells, averages)
    missing = [d for d in store.PAPER["table1"]["datasets"] if d not in cells]
    print(f"\nof the paper's fifteen data sets not at hand: {', '.join(missing) or 'none'}")
    paired = tables.paired(box.runs, "untrained encoders")
    more = {"seconds": tables.summary(box.runs, ["seconds"]), "missing": missing, "text": text}
    box.finish(table=cells, averages=averages, paired=paired, **more)
    height = 1.6 + 0.85 * len(cells)
    tables.picture(args, lambda figure, axis: draw(figure, axis, cells), height=height)
    return 0


if __name__ == "__main__":
    sys.exit(store.run_main(main))
