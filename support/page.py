"""The page of a run: report.html, one file without network, beside what it was made from.

    python -m support.page runs/BasicMotions

The numbers are computed here; page.html, with a little script of its own, draws them.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch

from metrics import ari
from support.archive import arrays_of
from support.files import write
from support.progress import one_line

SERIES, VARIATES, STEPS, FRAMES = 48, 8, 300, 40  # what is kept of a run's masks, at most
CLUSTERS, MEMBERS, POINTS, ROWS = 12, 3, 2000, 40  # what is drawn, at most
ARRAYS = ("labels", "embedding", "importance", "shown", "variates", "steps", "means", "series")
ARRAYS += ("trace", "trace_epochs")  # in a seed's .npz; where there is no mask, without these two


def spread(n, most):
    """At most `most` of the numbers 0 .. n - 1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def mean(series):
    """(n, T, D) -> (T, D), the mean of what is not NaN, and NaN where there is nothing else."""
    return np.ma.masked_invalid(series).mean(0, np.float64).filled(np.nan)


class Look:
    """The few series, timestamps and variates of X (N, T, D) that the page shows."""

    def __init__(self, X):
        N, T, D = X.shape
        self.X, self.shown = X, spread(N, SERIES)
        self.steps, self.variates = spread(T, STEPS), spread(D, VARIATES)
        self.part = np.ix_(self.shown, self.steps, self.variates)

    def add(self, trace, epoch, mask):
        """`trace`, {epoch: `hidden`}, and what the mask (N, T, D), True = keep, hides now."""
        trace = {**(trace or {}), epoch: torch.from_numpy(self.hidden(mask))}
        if len(trace) > FRAMES:  # the one goes whose neighbours are nearest to each other
            epochs = np.array([*trace])
            del trace[int(epochs[1 + np.argmin(epochs[2:] - epochs[:-2])])]
        return trace

    def hidden(self, mask):
        """What is observed there, but hidden: (S, T', D') bool."""
        return ~mask[self.part] & ~np.isnan(self.X[self.part])

    def arrays(self, trace, labels, mask):
        """What `make` needs, for the seed's .npz; the last frame, epoch -1, is the final mask."""
        parts = [np.ix_(labels == c, self.steps, self.variates) for c in range(labels.max() + 1)]
        found = {"shown": self.shown, "variates": self.variates, "steps": self.steps}
        found |= {"means": np.stack([mean(self.X[p]) for p in parts]), "series": self.X[self.part]}
        if mask is None:
            return found
        frames = {**(trace or {}), -1: self.hidden(mask)}
        trace = np.stack([np.asarray(frame) for frame in frames.values()])
        return found | {"trace": trace, "trace_epochs": np.array([*frames])}


def plain(a):
    """An array as nested lists of numbers of four digits; NaN becomes None."""
    if np.ndim(a):
        return [plain(part) for part in a]
    return None if np.isnan(a) else float(f"{a:.4g}")


def plane(E):
    """Embeddings (N, p) -> their first two principal components (N, 2), 0 where there is none."""
    E = E - E.mean(0)
    flat = E @ np.linalg.svd(E, full_matrices=False).Vh[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def importance_by_time(importance, steps):
    """Mean importance over the series, of the variates where it varies most; None without any."""
    if importance is None or len(np.unique(importance[importance > 0])) < 2:
        return None  # another method, or a mask that was not learned
    S = mean(np.where(importance > 0, importance, np.nan)[:, steps])  # it is 0 where one is missing
    varies = np.nanstd(np.where(np.isnan(S).all(0), 0, S), axis=0)  # (D,)
    rows = np.sort(np.argsort(-varies, kind="stable")[:ROWS])
    return {"variates": rows.tolist(), "values": plain(S.T[rows])}


def clusters_of(found, names):
    """For each of the largest clusters its mean, and the sampled members nearest to its middle."""
    labels, E, shown = found["labels"], found["embedding"], found["shown"]
    sizes, clusters = np.bincount(labels), []
    largest = np.argsort(-sizes, kind="stable")[:CLUSTERS]
    for c in np.sort(largest[sizes[largest] > 0]).tolist():
        rows = np.flatnonzero(labels[shown] == c)  # among the sampled series
        away = np.linalg.norm(E[shown[rows]] - E[labels == c].mean(0), axis=1)
        members = []
        for s in rows[np.argsort(away, kind="stable")[:MEMBERS]]:
            members.append({"name": names[shown[s]], "values": plain(found["series"][s].T)})
            if "trace" in found:  # "0110..." for each frame and variate
                frames = found["trace"][:, s].astype(int).transpose(0, 2, 1)  # (frames, D', T')
                members[-1]["hidden"] = [["".join(map(str, v)) for v in frame] for frame in frames]
        told = {"cluster": c, "size": int(sizes[c]), "mean": plain(found["means"][c].T)}
        clusters.append(told | {"members": members})
    return clusters


def make(folder):
    """Write `folder`/report.html, with pictures of the seed that agrees most; returns its path."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [row["class"] for row in rows]
    names = [f"{row.get('id') or row['sample']} {row['class']}".strip() for row in rows]
    files = {r["seed"]: folder / f"seed_{r['seed']}.npz" for r in results["per_seed"]}
    done = {seed: arrays_of(file, ("labels", "record")) for seed, file in files.items()}
    labelings = [a["labels"] for a in done.values()]
    agree = np.array([[ari(a, b) for b in labelings] for a in labelings])
    seed = [*done][agree.sum(0).argmax()]
    found = arrays_of(files[seed], ARRAYS)
    labels, at = found["labels"].tolist(), plain(plane(found["embedding"]))
    told = {
        "results": results, "seed": seed, "seeds": [*done], "agree": plain(agree),
        "histories": {s: json.loads(str(a["record"]))["history"] for s, a in done.items()},
        "steps": found["steps"].tolist(), "variates": found["variates"].tolist(),
        "epochs": found["trace_epochs"].tolist() if "trace" in found else [],
        "clusters": clusters_of(found, names),
        "sizes": np.bincount(labels, minlength=results["n_clusters"]).tolist(),
        "points": [[*at[i], labels[i], classes[i], names[i]] for i in spread(len(at), POINTS)],
        "importance": importance_by_time(found.get("importance"), found["steps"]),
        "pairs": list(zip(classes, labels)) if classes[0] else None,
    }  # fmt: skip
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    told = json.dumps(told, allow_nan=False).replace("<", "\\u003c")
    write(folder / "report.html", page.replace("/*DATA*/null", told))
    return folder / "report.html"


def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m support.page", description=__doc__.split("\n")[0])
    p.add_argument("folder", type=Path, help="a run's folder, runs/<data>")
    folder = p.parse_args(argv).folder
    try:
        print(make(folder))
    except (OSError, ValueError, KeyError) as error:
        p.exit(2, f"support.page: error: {folder} holds no finished run: {one_line(error)}\n")


if __name__ == "__main__":
    main()
