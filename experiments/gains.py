"""What does training add on real data, and what the mask? Paired over sets and seeds, both splits.

    python experiments/gains.py --jobs 2          # results/gains.json, figures/gains.png

A gain found on the sets by which a setting was chosen proves little, so the settings in CANDIDATES
are chosen by leaving sets out: for each set, the one with the highest mean gain of training on all
others; reported is its gain on the set left out. Both splits of a set are left out together.
"""

import sys

import numpy as np
import store
import study
import tables

DATA = ("BasicMotions", "BasicMotions:train", "RacketSports", "RacketSports:train", "NATOPS",
        "NATOPS:train", "JapaneseVowels", "JapaneseVowels:train", "ArticularyWordRecognition",
        "ArticularyWordRecognition:train", "ERing", "ERing:train", "Libras", "Libras:train",
        "UWaveGestureLibrary")  # fmt: skip
VARIANTS = {
    "default": {},
    "untrained": study.UNTRAINED,
    "one draw": {**study.UNTRAINED, "n_starts": 1},
    "no mask": study.NO_MASK,
}
CANDIDATES = ("default", "no mask")  # among which leaving sets out chooses
TITLES = {
    "untrained": "trained over untrained",
    "no mask": "mask over none",
    "one draw": "trained over one draw",
}


def leave_out(gains):
    """gains {setting: {set: gain}} -> {set: {"chosen", "gain"}}, chosen on all other sets."""
    out, sets = {}, list(next(iter(gains.values())))
    for left in sets:
        others = {s: sum(g[n] for n in sets if n != left) for s, g in gains.items()}
        chosen = max(others, key=others.get)  # the first wins a draw
        out[left] = {"chosen": chosen, "gain": gains[chosen][left]}
    return out


def by_set(by_data):
    """{"NATOPS": gain, "NATOPS train": gain} -> {"NATOPS": mean of both}."""
    sets = {}
    for data, gain in by_data.items():
        sets.setdefault(data.removesuffix(" train"), []).append(gain)
    return {name: float(np.mean(v)) for name, v in sets.items()}


def over(runs, variant, control, metric):
    """tables.paired of `variant` minus `control`."""
    own = [r for r in runs if r["variant"] in (variant, control)]
    return tables.paired(own, control, metric)[variant]


def left_out(runs, metric):
    """What leaving sets out says of training: by set, mean, standard error over the sets."""
    gains = {s: by_set(over(runs, s, "untrained", metric)["by_data"]) for s in CANDIDATES}
    sets = leave_out(gains)
    values = [v["gain"] for v in sets.values()]
    mean, se = float(np.mean(values)), tables.error(values)
    return {"settings": gains, "by_set": sets, "mean": mean, "se_sets": se}


def draw(figure, axes, paired):
    """One panel a question: the gain on each data set, and its mean with its standard error."""
    for axis, (control, title) in zip(axes, TITLES.items()):
        for k, metric in enumerate(("ACC", "NMI")):
            d = paired[metric][control]
            y = np.arange(len(d["by_data"]) + 1) + 0.3 * k - 0.15
            axis.plot([*d["by_data"].values(), d["mean"]], y, "os"[k], label=metric)
            axis.errorbar(d["mean"], y[-1], xerr=d["se_sets"] or 0, color=tables.COLOURS[k])
        axis.axvline(0, color="#444444", lw=1)
        axis.set(title=title, yticks=range(len(y)), yticklabels=[])
        axis.invert_yaxis()
    axes[0].set_yticklabels([*d["by_data"], "mean"])
    tables.legend(figure, axes[0])


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = store.arguments("gains", __doc__, argv, seeds=range(3), data=DATA)
    box = study.fill(args, VARIANTS)
    paired = {m: {c: over(box.runs, "default", c, m) for c in TITLES} for m in ("ACC", "NMI")}
    outside = {m: left_out(box.runs, m) for m in ("ACC", "NMI")}
    table = tables.summary(box.runs)
    text = [*tables.show(table), study.differences(paired, "default minus")]
    rows = [[name, *(f"{o['by_set'][name]['gain']:+.3f} ({o['by_set'][name]['chosen']})"
                     for o in outside.values())] for name in outside["ACC"]["by_set"]]  # fmt: skip
    ends = [f"{o['mean']:+.3f}, se {o['se_sets'] or 0:.3f}" for o in outside.values()]
    title = "Trained over untrained on the set left out, by the setting chosen on the others"
    text.append(tables.print_table(["left out", *outside], [*rows, ["mean", *ends]], title))
    extra = {"paired": paired, "left_out": outside, "text": text}
    box.finish(table=table, average=tables.average(table), **extra)
    shape = {"ncols": len(TITLES), "height": 1.6 + 0.3 * len(table), "width": 11}
    tables.picture(args, lambda figure, axes: draw(figure, axes, paired), **shape)
    return 0


if __name__ == "__main__":
    sys.exit(store.run_main(main))
