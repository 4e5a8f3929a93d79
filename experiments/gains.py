"""What does training add on real data, and what the mask? Paired over sets and seeds, both splits.

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
VARIANTS = {"default": {}, "untrained": study.UNTRAINED, "no mask": study.NO_MASK,
            "random": study.STATIC["random"], "epsilon 0.3": {"epsilon": 0.3}}  # fmt: skip
CANDIDATES = ("default", "no mask", "epsilon 0.3")  # among which leaving sets out chooses
TITLES = {"untrained": "trained over untrained", "no mask": "mask over none",
          "random": "evolving over random", "epsilon 0.3": "default over epsilon .3"}  # fmt: skip


def leave_out(gains):
    """gains {setting: {data: gain}} -> {set: {"chosen", "gain"}}, chosen on all other sets.

    The gain of a set is the mean over its splits: "NATOPS" and "NATOPS train" are one set.
    """
    splits, out = {}, {}
    for data in next(iter(gains.values())):
        splits.setdefault(data.removesuffix(" train"), []).append(data)
    by_set = {s: {n: float(np.mean([g[d] for d in v])) for n, v in splits.items()}
              for s, g in gains.items()}  # fmt: skip
    for left in splits:
        others = {s: sum(g[n] for n in splits if n != left) for s, g in by_set.items()}
        chosen = max(others, key=others.get)  # the first wins a draw
        out[left] = {"chosen": chosen, "gain": by_set[chosen][left]}
    return out


def left_out(runs, metric):
    """What leaving sets out says of training: by set, mean, standard error over the sets."""
    gains = {s: tables.paired(runs, "untrained", metric)[s]["by_data"] for s in CANDIDATES}
    sets = leave_out(gains)
    values = [v["gain"] for v in sets.values()]
    mean, se = float(np.mean(values)), tables.error(values)
    return {"settings": gains, "by_set": sets, "mean": mean, "se_sets": se}


def main(argv=None):
    """Train, print, save, draw."""
    args = store.arguments("gains", __doc__, argv, seeds=range(3), data=DATA)
    box = store.Store(args)
    study.fill(box, args, VARIANTS)
    paired = {m: {c: tables.paired(box.runs, c, m)["default"] for c in TITLES}
              for m in ("ACC", "NMI")}  # fmt: skip
    outside = {m: left_out(box.runs, m) for m in ("ACC", "NMI")}
    table = tables.summary(box.runs)
    text = [*tables.show(table), study.differences(paired, "default minus")]
    told = lambda one: f"{one['gain']:+.3f} ({one['chosen']})"
    sets = outside["ACC"]["by_set"]
    rows = [[name, *(told(o["by_set"][name]) for o in outside.values())] for name in sets]
    ends = [f"{o['mean']:+.3f}, se {o['se_sets'] or 0:.3f}" for o in outside.values()]
    title = "Trained over untrained on the set left out, by the setting chosen on the others"
    text.append(tables.print_table(["left out", *outside], [*rows, ["mean", *ends]], title))
    extra = {"paired": paired, "left_out": outside, "text": text}
    box.finish(table=table, average=tables.average(table), **extra)
    gains = {data: {title: {m: {"mean": d[c]["by_data"][data]} for m, d in paired.items()}
                    for c, title in TITLES.items()} for data in table}  # fmt: skip

    def draw(axes):
        tables.panels(axes, gains)
        for axis in axes:
            axis.axvline(0, color="#444444", lw=1)
            axis.locator_params(axis="x", nbins=5)

    tables.picture(args, draw, ncols=2, height=1.6 + 0.45 * len(table))


if __name__ == "__main__":
    sys.exit(store.run_main(main))
