"""What is redundant (the paper's Fig. 1)? The series of a few samples with the masked timestamps shaded, over epochs.

And what the masked values have in common: how far from the mean they are (|z|), how far from the value before them
(|step|), compared with the kept ones. A run goes on to its last epoch here, also when its labels no longer change.

    python experiments/masks.py                                 # figures/masks.png
    python experiments/masks.py --data RacketSports --variate 2
"""

import sys

import numpy as np

import common
import recorded
from baselines import z_scored
from emtc import EMTC

SHADE, LINE, FAINT = "#d5d5d5", common.COLOURS[0], "#8a8a8a"


def chosen(y, k):
    """Index of the first sample of each of the first k classes: for the picture only, after training."""
    return [int(np.flatnonzero(y == c)[0]) for c in sorted(set(y.tolist()))[:k]]


def milestones(epochs):
    """Epochs to draw: the first, a quarter of the way, the last; as many of these as there are."""
    return sorted({1, max(1, epochs // 4), epochs})


def text(mask):
    """Mask (T, D) bool, True = keep, as D strings of 1 and 0."""
    return ["".join("01"[int(kept)] for kept in variate) for variate in mask.T]


def array(strings):
    """The mask (T, D) bool, True = keep, of `text`."""
    return np.array([[c == "1" for c in variate] for variate in strings]).T


def properties(X, mask):
    """{"abs_z_kept", "abs_z_masked", "abs_step_kept", "abs_step_masked"}: means of X (N, T, D) over the final mask."""
    z, seen = (v.transpose(1, 2).numpy() for v in z_scored(X))
    z = np.where(seen, z, np.nan)                                     # (N, T, D)
    values = {"abs_z": np.abs(z), "abs_step": np.abs(np.diff(z, axis=1, prepend=np.nan))}
    return {f"{name}_{group}": float(np.nanmean(v[at])) if (at & ~np.isnan(v)).any() else None
            for name, v in values.items() for group, at in (("kept", mask), ("masked", ~mask))}


def overlap(a, b):
    """Share of the entries masked in a or b that are masked in both; 1 if none is masked. Masks True = keep."""
    either = (~a | ~b).sum()
    return float((~a & ~b).sum() / either) if either else 1.0


def run(dataset, seed, epochs, samples):
    """Train; the masks of `samples` at the milestones, kept shares by epoch and class, what is masked at the end."""
    g, masks, kept, at = len(dataset.classes), {}, [], {}
    first = EMTC(g, mask="random", epochs=0, seed=seed).fit(dataset.X).mask_  # EMTC's own start
    seen = ~np.isnan(dataset.X)                                               # (N, T, D)

    def on_epoch(model, record):
        kept.append([float(model.mask_[dataset.y == c].sum() / seen[dataset.y == c].sum()) for c in range(g)])
        if record["epoch"] in milestones(epochs):
            at[record["epoch"]] = model.mask_

    model = EMTC(g, epochs=epochs, seed=seed, patience=epochs + 1).fit(dataset.X, on_epoch=on_epoch)
    for epoch, mask in {0: first, **at}.items():
        masks[str(epoch)] = [text(mask[i]) for i in samples]
    last = model.mask_
    return {"epochs": epochs, "samples": samples, "masks": masks, "kept": float(last.sum() / seen.sum()),
            "kept_by_class": kept, "kept_by_variate": (last.sum((0, 1)) / seen.sum((0, 1))).tolist(),
            "overlap_with_last": {str(e): overlap(m[seen], last[seen]) for e, m in {0: first, **at}.items()},
            **properties(dataset.X, last | ~seen)}


# ---------------------------------------------------------------- the picture

def spans(masked):
    """[(start, end)] of the runs of True in masked (T,), end exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def series(axis, z, keep):
    """One series z (T,), NaN = missing, with the timestamps that keep (T,) leaves out shaded."""
    t, length = np.arange(len(z)), int(np.flatnonzero(~np.isnan(z)).max()) + 1
    for start, end in spans(~keep & ~np.isnan(z)):
        axis.axvspan(start - 0.5, end - 0.5, color=SHADE, lw=0, zorder=0)
    axis.plot(t, z, color=FAINT, lw=0.9, zorder=2)
    axis.plot(t, np.where(keep, z, np.nan), color=LINE, lw=1.6, marker=".", markersize=2.5, zorder=3)
    axis.text(1, 1, f"kept {100 * keep[:length].mean():.0f} %", transform=axis.transAxes, ha="right", va="bottom",
              fontsize=8)
    axis.set(xlim=(-0.5, length - 0.5))
    axis.grid(visible=False)


def draw(figure, axes, dataset, record, variate):
    """Rows: the epochs, for one variate; last row: the last mask of all variates. Columns: samples, one a class."""
    z, seen = (v.transpose(1, 2).numpy() for v in z_scored(dataset.X))
    z, epochs = np.where(seen, z, np.nan), [int(e) for e in record["masks"]]
    for j, i in enumerate(record["samples"]):
        axes[0, j].set_title(f"{dataset.classes[dataset.y[i]]} (sample {i})", loc="left")
        for row, epoch in enumerate(epochs):
            series(axes[row, j], z[i, :, variate], array(record["masks"][str(epoch)][j])[:, variate])
            axes[row, j].sharey(axes[0, j])
            axes[row, j].tick_params(labelbottom=False)
        mask = array(record["masks"][str(epochs[-1])][j])
        length = int(np.flatnonzero(seen[i].any(1)).max()) + 1
        axes[-1, j].imshow(mask[:length].T, cmap="gray", vmin=-5, vmax=1, aspect="auto", interpolation="nearest")
        axes[-1, j].set(xlabel="timestamp", yticks=range(0, mask.shape[1], max(1, mask.shape[1] // 6)))
        axes[-1, j].grid(visible=False)
        axes[-1, j].tick_params(left=j == 0, labelleft=j == 0)
        for d in range(1, mask.shape[1]):
            axes[-1, j].axhline(d - 0.5, color="white", lw=1)
    for row, epoch in enumerate(epochs):
        name = "start, random" if epoch == 0 else f"epoch {epoch}" + (", last" if epoch == record["epochs"] else "")
        axes[row, 0].set_ylabel(f"{name}\nz-scored")
    axes[-1, 0].set_ylabel("last, each\nvariate")
    figure.suptitle(f"{dataset.name}, variate {variate}: blue timestamps are kept, shaded ones masked", fontsize=11)


def main(argv=None):
    """Train, print, save, draw the first data set; returns 0."""
    args = common.arguments("masks", __doc__, argv, seeds=(0,), data=["BasicMotions"], options={
        "--variate": dict(type=int, default=0, metavar="D", help="which variate to draw (default: 0)"),
        "--classes": dict(type=int, default=3, metavar="K", help="samples to draw, one a class (default: 3)")})
    if args.epochs < 1:
        raise common.UserError("--epochs 0 has no mask to follow; give 1 or more")
    store = common.Store(args, code=recorded.CODE, **recorded.settings(args), classes=args.classes)
    common.sweep(store, args, ["EMTC"], lambda dataset, _, seed: run(
        dataset, seed, args.epochs, chosen(dataset.y, args.classes)))
    store.finish()
    common.print_table(["data", "seed", "kept", "|z| kept", "|z| masked", "|step| kept", "|step| masked",
                        "masked at both: epoch 1 and last"],
                       [[r["data"], r["seed"], f"{r['kept']:.3f}",
                         *("-" if r[k] is None else f"{r[k]:.2f}" for k in (
                             "abs_z_kept", "abs_z_masked", "abs_step_kept", "abs_step_masked")),
                         f"{r['overlap_with_last']['1']:.2f}"] for r in store.runs])
    dataset = common.load(args.data[0], args)
    if not 0 <= args.variate < dataset.X.shape[2]:
        raise common.UserError(f"--variate {args.variate}: {dataset.name} has variates 0 to {dataset.X.shape[2] - 1}")
    record = store.get(dataset.name, "EMTC", args.seeds[0], common.content_hash(dataset))
    rows = len(record["masks"]) + 1
    common.picture(args, lambda figure, axes: draw(figure, axes, dataset, record, args.variate), nrows=rows,
                   ncols=len(record["samples"]), height=1.15 * rows + 1, width=9.5, squeeze=False)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
