"""Studies of EMTC: some settings, every data set and seed, one table, one picture.

    python experiments/study.py                       # which studies there are
    python experiments/study.py masking --jobs 2      # results/study_masking.json and its picture

ACC and NMI of the last epoch; no label is read before the score.
"""

import sys
from typing import NamedTuple

import store  # first: it puts the project's folder on the path
import tables
from masks import KINDS, static_mask

import emtc

DEFAULTS = store.defaults()
DATA = ("BasicMotions", "RacketSports", "JapaneseVowels:train", "NATOPS:train")
TERMS = ("contra", "intra", "inter")
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1)
HALF = {"epsilon": 0.4}  # hides about half of the entries; the default, next to nothing
FROZEN = {"mask": "frozen"}  # the importance network stays as drawn
NO_MASK = {"mask": "none", "hide": 0.0}  # nothing is ever hidden, in training neither
UNTRAINED = {"epochs": 0, "mask": "none"}


def around(option, *factors):
    """Variants of one option: the default times each factor."""
    values = [float(f"{f * DEFAULTS[option]:.3g}") for f in factors]
    return {f"{option} {v:g}": {option: v} for v in values}


def epsilons(name, values, **options):
    """Variants of the threshold of Eq. (3): 0 keeps all, 1 one entry of each sample."""
    return {f"{name} {e:g}": {"epsilon": float(e), **options} for e in values}


def static(kind, share=None):
    """A mask that does not learn; without a share, it keeps as much as the control's mask does.

    Such a variant is a function of the data set, the seed and the control's record.
    """

    def options(dataset, seed, control):
        keep = control["kept"] if share is None else share
        return {"mask": static_mask(kind, dataset.X, keep, seed)}

    return options


STATIC = {kind: static(kind) for kind in KINDS}

# From the plainest to the default: each step takes one option from the default.
LADDER, left = {"as printed": {"as_printed": True}}, dict(emtc.AS_PRINTED)
for option, step in {"pooling": "pooling", "encoder": "encoder bank", "fusion": "learned fusion",
                     "n_init": "k-means restarts", "n_starts": "choice of the start",
                     "hide": "hidden versions",
                     "mask_lr": "learned mask = default"}.items():  # fmt: skip
    del left[option]
    LADDER[f"+ {step}"] = dict(left)


class Study(NamedTuple):
    """A question and the settings that answer it.

    variants: {name: options of EMTC, or what `static` returns}; the first is the control, with
    which the others are compared. x: the options on the axes of its picture, or "kept" for a line a
    kind of mask over the share kept; without, dots by data set.
    """

    question: str
    variants: dict
    x: tuple | str | None = None


STUDIES = {
    "ladder": Study("From the paper as printed to the default, one step at a time.", LADDER),
    "masking": Study(
        "Evolving at epsilon = .4 against frozen, and static masks of the same share (Fig. 3).",
        {"evolving": HALF, "frozen": FROZEN | HALF, **STATIC, "default": {}, "none": NO_MASK},
    ),
    "shares": Study(
        "And over the whole curve of shares kept.",
        {
            "none": NO_MASK,
            **epsilons("evolving", (0, 0.2, 0.4, 0.6, 0.8)),
            **epsilons("frozen", (0.2, 0.4, 0.6, 0.8), **FROZEN),
            **{f"{kind} {k:g}": static(kind, k) for kind in KINDS for k in SHARES},
        },
        "kept",
    ),
    "threshold": Study(
        "How much is redundant? Epsilon of Eq. (3).",
        {"default": {}, **epsilons("epsilon", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7))},
        ("epsilon",),
    ),
    "ablation": Study(
        "Do IVM and MEV earn their place (the paper's Table 3)?",
        {
            "EMTC": {},
            "IVM frozen": FROZEN,
            "without IVM": {"drop": ("ivm",)},
            "without MEV": {"drop": ("mev",)},
            "without both": {"drop": ("ivm", "mev")},
        },
    ),
    "loss_ablation": Study(
        "Which terms of the loss, Eq. (13), does it need?",
        {
            "EMTC": {},
            **{f"without {t}": {"drop": (t,)} for t in TERMS},
            **{f"only {t}": {"drop": tuple(o for o in TERMS if o != t)} for t in TERMS},
        },
    ),
    "tau": Study(
        "How sensitive is it to tau of Eq. (11), alpha and beta of Eq. (13)?",
        {
            "default": {},
            **around("tau", 0.2, 0.5, 2, 5),
            **around("alpha", 0.01, 0.1, 10, 100),
            **around("beta", 0.01, 0.1, 10, 100),
        },
        ("tau", "alpha", "beta"),
    ),
    "views": Study(
        "How many views? Eq. (4) leaves V open.",
        {"default": {}, **{f"V = {v}": {"n_views": v} for v in (1, 2, 3, 4, 5)}},
        ("n_views",),
    ),
}


def fill(box, args, variants, fit=store.run, load=None):
    """Fill a Store: fit(args, dataset, seed, **options) for each data set, variant and seed.

    The first variant is the control, which runs before the others.
    """
    first, *_ = order = list(variants)

    def run(dataset, variant, seed):
        options = variants[variant]
        if callable(options):
            control = box.get(dataset.name, first, seed, store.content_hash(dataset))
            options = options(dataset, seed, control)
        return fit(args, dataset, seed, **options)

    for some in ([first], order):
        store.sweep(box, args, some, run, load)


def finish(box, control, metrics=("ACC", "NMI", "kept"), **extra):
    """Print and save the table of the runs, its means, and the differences to the control."""
    table = tables.summary(box.runs, (*tables.METRICS, *metrics[2:]))
    paired = {m: tables.paired(box.runs, control, m) for m in ("ACC", "NMI")}
    text = [*tables.show(table, metrics), differences(paired, f"minus {control}")]
    box.finish(table=table, average=tables.average(table), paired=paired, text=text, **extra)
    return table


def differences(paired, title):
    """Print {metric: tables.paired(...)}: means, standard errors, the lowest of the data sets."""
    heads = [title, *(h for m in paired for h in (m, "se", "se of sets", "lowest", "worse/better"))]
    rows = []
    for variant in paired["ACC"]:
        row = [variant]
        for d in (paired[m][variant] for m in paired):
            errors = ("-" if d[k] is None else f"{d[k]:.3f}" for k in ("se", "se_sets"))
            lowest = min(d["by_data"].values())
            row += [f"{d['mean']:+.3f}", *errors, f"{lowest:+.3f}", f"{d['worse']}/{d['better']}"]
        rows.append(row)
    return tables.print_table(heads, rows, "Run by run; se: of the mean, over runs, over data sets")


def over_options(axes, table, study):
    """ACC and NMI over each option, a thin line a data set and a thick one for their mean."""
    for column, option in zip(axes.T, study.x):
        points = {v: o[option] for v, o in study.variants.items() if option in o}
        points["default"] = DEFAULTS[option]
        order = sorted(points, key=points.get)
        for axis, metric in zip(column, ("ACC", "NMI")):
            for data, row in tables.with_mean(table).items():
                at = [(points[v], row[v][metric]["mean"]) for v in order if v in row]
                bold = {"color": "black", "lw": 3} if data == "mean" else {"lw": 1.2}
                axis.plot(*zip(*at), marker=".", label=data, **bold)
            axis.axvline(points["default"], color="#444444", ls="--", zorder=1)
            axis.set(ylabel=metric, xlabel=f"{option} (dashed: default)")
            axis.set_xscale("log" if "tau" in study.x else "linear")


def over_kept(axes, table):
    """ACC and NMI, means over the data sets, over the share kept: one line a kind of mask."""
    mean = tables.average(table)
    for axis, metric in zip(axes[0], ("ACC", "NMI")):
        for kind in dict.fromkeys(v.split()[0] for v in mean):
            own = [mean[v] for v in mean if v.split()[0] == kind]
            at = sorted((c["kept"]["mean"], c[metric]["mean"]) for c in own)
            axis.plot(*zip(*at), marker="o", label=kind)
        axis.set(xlabel="share of the values kept", ylabel=f"{metric}, mean of the data sets")


def picture(args, table, study):
    """The study's picture, of the kind that its x asks for."""
    x, shape = study.x, {"ncols": 2, "height": 4.4, "squeeze": False}
    if x is None:
        draw = lambda axes: tables.panels(axes[0], table)
        shape["height"] = 1.5 + (len(table) + 1) * max(0.45, 0.11 * len(study.variants))
    elif x == "kept":
        draw = lambda axes: over_kept(axes, table)
    else:
        draw = lambda axes: over_options(axes, table, study)
        shape |= {"nrows": 2, "ncols": len(x), "height": 6.5}
    tables.picture(args, draw, **shape)


def main(argv=None):
    """Run one study; without a name, list them."""
    name, *argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in STUDIES:
        print(__doc__.strip() + "\n")
        print("\n".join(f"  {name:<14} {study.question}" for name, study in STUDIES.items()))
        return 0 if name in ("-h", "--help") else 2
    study = STUDIES[name]
    args = store.arguments(f"study_{name}", study.question, argv, data=DATA)
    box = store.Store(args)
    fill(box, args, study.variants)
    picture(args, finish(box, next(iter(study.variants))), study)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
