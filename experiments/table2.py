"""The paper's clustering comparison (Table 2), at the last epoch: EMTC, what needs no training, and the paper.

For each data set found (test split, five seeds; ACC, F1, NMI, ARI): EMTC at its last epoch and, for comparison
only, at the epoch with the best ACC by the true labels, which is how the paper chose its numbers; the untrained
encoders; k-means on the raw values; 1000 random dilated kernels + PCA + k-means, as it is and with rows of unit
length; SimMTM, NC-VQVAE and MUG (related/), each also untrained; the luck floor, the best of 201 random labelings
with these class sizes; the paper's EMTC and the best of its eight rivals (published.json).

    python experiments/table2.py                  # results/table2.json, figures/table2.png
    python experiments/table2.py --markdown       # only the tables of what is stored, for the README
    python experiments/table2.py --methods        # without related/ (or: --methods SimMTM)
"""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import baselines
import common
import recorded
import studies
from metrics import scores

PUBLISHED = Path(__file__).with_name("published.json")
ORACLE, LUCK, PAPER, RIVAL = "EMTC oracle epoch", "luck floor", "paper's EMTC", "paper's best other"
UNTRAINED = " untrained"  # ends the name of a method of related/ at epochs=0
RELATED = {"SimMTM": ("simmtm",), "NCVQVAE": ("nc_vqvae", "second_view"), "MUG": ("mug", "simmtm")}  # its modules
BASE_CODE = ("kmeans", "metrics", "experiments/baselines")
common.code_hash(*BASE_CODE)
blue, vermilion, green, pink, orange, sky, black = common.COLOURS[:7]
STYLE = {"EMTC": (blue, "o"), ORACLE: (blue, "o"), PAPER: (vermilion, "o"), "untrained encoders": (green, "D"),
         "raw k-means": (pink, "^"), "random kernels": (orange, "v"), "random kernels, unit": (sky, "s"),
         "SimMTM": (black, "x"), "NCVQVAE": ("#888888", "P"), "MUG": ("#888888", "*")}
BASELINES = {"raw k-means": baselines.raw_kmeans, "random kernels": baselines.kernel_kmeans,
             "random kernels, unit": lambda X, k, seed: baselines.kernel_kmeans(X, k, seed, unit=True)}


def run(args, dataset, variant, seed):
    """One record of one method."""
    if dataset.y is None:
        raise common.UserError(f"{dataset.name} has no labels: there is nothing to score")
    if variant == "EMTC":
        return recorded.without(recorded.run(args, dataset, seed), "curves")
    if variant == "untrained encoders":
        return recorded.without(recorded.run(args, dataset, seed, epochs=0, mask="none"), "curves", "oracle")
    if variant == LUCK:
        mean, std = common.luck_floor(dataset.y, sizes=True)
        return {"ACC": mean, "std": std, "tries": 12, "draws": 201}
    method, code, epochs = variant.removesuffix(UNTRAINED), BASE_CODE, None
    if method in RELATED:
        code = ("kmeans", "metrics", "related/common", *(f"related/{module}" for module in RELATED[method]))
        epochs = 0 if variant != method else 3 if args.quick else None
    return recorded.cached(args, lambda _: cluster(dataset, method, seed, epochs), code=code, data=dataset.name,
                           method=variant, seed=seed, epochs=epochs, data_hash=common.content_hash(dataset))


def with_controls(methods):
    """Each method of related/ and the same method untrained."""
    return [name for method in methods for name in (method, method + UNTRAINED)]


def cluster(dataset, method, seed, epochs=None):
    """Scores and labels of a method that is not EMTC; labels enter after it has ended."""
    with common.timer() as seconds:
        if method in RELATED:
            estimator = getattr(importlib.import_module(f"related.{RELATED[method][0]}"), method)
            labels = estimator(len(dataset.classes), seed=seed, **({} if epochs is None else {"epochs": epochs})
                            ).fit_predict(dataset.X)
        else:
            labels = BASELINES[method](dataset.X, len(dataset.classes), seed)
    return {**scores(dataset.y, labels), "labels": labels, "train_seconds": seconds()}


# ---------------------------------------------------------------- the table

def table(runs, published):
    """{data: {method: {metric: {"mean", "std", "n"}}}}, the oracle, the luck floor and the paper among the methods."""
    oracle = [{"data": r["data"], "variant": ORACLE, **r["oracle"]} for r in runs if r["variant"] == "EMTC"]
    order = ["EMTC", ORACLE, "untrained encoders", *BASELINES, *with_controls(RELATED)]
    cells, out = common.summary([*runs, *oracle]), {}
    for name in sorted(cells, key=common.cost):
        row = out[name] = {m: cells[name][m] for m in order if m in cells[name]}
        for r in runs:
            if (r["data"], r["variant"]) == (name, LUCK):
                row[LUCK] = {"ACC": {"mean": r["ACC"], "std": r["std"], "n": r["tries"]}}
        for metric, values in published.get(name, {}).items():
            best = max((m for m in values if m != "EMTC"), key=lambda m: values[m][0])
            for label, method in ((PAPER, "EMTC"), (RIVAL, best)):
                row.setdefault(label, {})[metric] = dict(zip(("mean", "std"), values[method])) | {"method": method}
    return out


def reliability(runs):
    """{data: {"agreement", "label_change", "ACC"}} of EMTC: what its seeds say without labels, beside the ACC."""
    out = {}
    for name in sorted({r["data"] for r in runs}, key=common.cost):
        own = [r for r in runs if (r["data"], r["variant"]) == (name, "EMTC")]
        if own:
            change = [r["label_change"] for r in own if r["label_change"] is not None]
            out[name] = {"agreement": recorded.agreement([r["labels"] for r in own]),
                         "label_change": sum(change) / len(change) if change else None,
                         "ACC": sum(r["ACC"] for r in own) / len(own), "epochs": [r["epochs"] for r in own]}
    return out


def show(cells, averages, seeds_say):
    """Print the one table (std of EMTC's seeds beside its means, all others' in the JSON), and what the seeds say."""
    known = studies.methods(cells)
    methods = [m for m in known if not m.endswith(UNTRAINED)]
    lines = [*cells.items(), *((title, a["cells"]) for title, a in averages.items() if len(a["data"]) > 1)]
    rows = [[title, *(common.cell(row.get("EMTC", {}).get(m)) for m in common.METRICS),
             *(common.cell(row.get(m, {}).get("ACC"), std=False) for m in methods if m != "EMTC")]
            for title, row in lines]
    common.print_table(["data", "EMTC ACC", *common.METRICS[1:], *(m for m in methods if m != "EMTC")], rows,
                       "EMTC at its last epoch, mean ± std over seeds; ACC of all others")
    methods = [m for m in ("EMTC", "untrained encoders", *with_controls(RELATED)) if m in known]
    if set(RELATED) & set(methods):
        common.print_table(["data", *methods, "raw k-means"], [
            [title, *(common.cell(row.get(m, {}).get("ACC")) for m in (*methods, "raw k-means"))]
            for title, row in lines], "ACC of the neighbours in related/, mean ± std over seeds")
    number = lambda v: "-" if v is None else f"{v:.3f}"  # noqa: E731
    common.print_table(["data", "agreement of the seeds (ARI)", "labels changing an epoch", "ACC", "epochs run"],
                       [[data, number(r["agreement"]), number(r["label_change"]), number(r["ACC"]),
                         ", ".join(map(str, r["epochs"]))] for data, r in seeds_say.items()],
                       "What EMTC's seeds say without labels")


def draw(figure, axis, cells):
    """ACC of each method on each data set; the luck floor as a bar from zero; hollow: picked by the labels."""
    shown = [m for m in STYLE if m in studies.methods(cells)]
    studies.dots(axis, cells, "ACC", shown, hollow=(ORACLE, PAPER), styles=STYLE)
    for y, row in enumerate(cells.values()):
        if LUCK in row:
            axis.barh(y, row[LUCK]["ACC"]["mean"], height=0.86, color="#e8e8e8", zorder=0,
                      label="below the luck floor" if y == 0 else None)
    axis.set(xlim=(0, 1.02), title="Clustering accuracy; filled: labels never read, hollow: epoch picked by labels")
    studies.legend(figure, axis)


def main(argv=None):
    """Fill what is missing, print, save, draw; returns 0."""
    args = common.arguments("table2", __doc__, argv, seeds=range(5), options={
        "--methods": dict(nargs="*", choices=[*RELATED], default=[*RELATED], help="of related/ (default: all)"),
        "--markdown": dict(action="store_true", help="print the tables of what is stored, run nothing")})
    store = common.Store(args, code=(*recorded.CODE, "experiments/baselines"), **recorded.settings(args))
    if not args.markdown:
        once, do = Namespace(**{**vars(args), "seeds": [0]}), lambda *work: run(args, *work)
        common.sweep(store, once, [LUCK], do)
        common.sweep(store, args, [*BASELINES, "untrained encoders"], do)
        common.sweep(store, args, ["EMTC"], do)
        common.sweep(store, args, with_controls(args.methods), do)
    cells = table(store.runs, json.loads(PUBLISHED.read_text(encoding="utf-8"))["table2"]["results"])
    mine = {name: {m: cell for m, cell in row.items() if m not in (PAPER, RIVAL)} for name, row in cells.items()}
    averages = {"mean of all": studies.average(mine), "mean of the paper's": studies.average(
        {name: row for name, row in cells.items() if PAPER in row})}
    seeds_say = reliability(store.runs)
    show(cells, averages, seeds_say)
    if args.markdown:
        return 0
    store.finish(table=cells, averages=averages, reliability=seeds_say)
    common.picture(args, lambda figure, axis: draw(figure, axis, cells), height=1.6 + 0.85 * len(cells))
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
