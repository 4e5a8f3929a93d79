"""The page of a run: report.html, one file without network, beside what it was made from.

    python -m support.page runs/BasicMotions

The numbers are computed here; page.html, with a little script of its own, draws them.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch

from metrics import ari
from support.files import write

SERIES, VARIATES, BINS, FRAMES = 48, 8, 300, 40  # what is kept of a run's masks, at most
CLUSTERS, MEMBERS, POINTS, ROWS = 12, 3, 2000, 40  # what is drawn, at most


def spread(n, most):
    """At most `most` of the numbers 0 .. n - 1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def binned(values, seen, edges):
    """Means over stretches of time of what is seen: (..., T, D) -> (..., bins, D), else NaN."""
    total = np.add.reduceat(np.where(seen, values, 0).astype(np.float64), edges, axis=-2)
    count = np.add.reduceat(seen.astype(int), edges, axis=-2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class Look:
    """The few series, variates and stretches of time of X (N, T, D) that the page shows."""

    def __init__(self, X):
        N, T, D = X.shape
        self.X, self.shown, self.variates = X, spread(N, SERIES), spread(D, VARIATES)
        self.edges = np.linspace(0, T, min(T, BINS), endpoint=False).astype(int)
        self.part = X[self.shown][:, :, self.variates]  # (S, T, D')

    def add(self, trace, epoch, mask):
        """`trace` and what the mask (N, T, D), True = keep, hides after this epoch.

        At most FRAMES epochs stay: when there are more, every second one goes. A trace holds the
        epochs, and for each the hidden share of what is observed in a bin, (S, bins, D') uint8.
        """
        trace = trace or {"stride": 1, "epochs": [], "hidden": []}
        if (epoch - 1) % trace["stride"] == 0:
            trace["epochs"].append(epoch)
            trace["hidden"].append(torch.from_numpy(self.hidden(mask)))
        if len(trace["epochs"]) > FRAMES:
            trace["stride"] *= 2
            trace["epochs"], trace["hidden"] = trace["epochs"][::2], trace["hidden"][::2]
        return trace

    def hidden(self, mask):
        seen = ~np.isnan(self.part)
        share = binned(~mask[self.shown][:, :, self.variates], seen, self.edges)
        return (255 * np.nan_to_num(share)).round().astype(np.uint8)

    def arrays(self, trace, labels, mask):
        """What `make` needs, for the seed's .npz; the last frame, epoch -1, is the final mask."""
        means = np.full((labels.max() + 1, len(self.edges), len(self.variates)), np.nan)
        for c in np.unique(labels):
            members = self.X[labels == c][:, :, self.variates]
            seen = ~np.isnan(members)
            n = np.maximum(seen.sum(0), 1)
            mean = np.where(seen, members, 0).sum(0) / n  # (T, D')
            means[c] = binned(mean, seen.any(0), self.edges)
        found = {"shown": self.shown, "variates": self.variates, "edges": self.edges}
        found |= {"means": means, "series": binned(self.part, ~np.isnan(self.part), self.edges)}
        if mask is not None:
            frames = [] if trace is None else [frame.numpy() for frame in trace["hidden"]]
            found["trace"] = np.stack([*frames, self.hidden(mask)])  # (frames, S, bins, D')
            found["trace_epochs"] = np.array([*(trace["epochs"] if frames else []), -1])
        return found


# ---- from the folder to the page


def plain(value):
    """Nested arrays as lists of numbers of four digits; NaN becomes None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    return None if not np.isfinite(value) else float(f"{value:.4g}")


def plane(E):
    """Embeddings (N, p) -> their first two principal components (N, 2), 0 where there is none."""
    E = E - E.mean(0)
    _, _, axes = np.linalg.svd(E, full_matrices=False)
    flat = E @ axes[:2].T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def importance_by_time(importance, edges):
    """Mean importance over the series, of the variates where it varies most; None without any."""
    if importance is None:  # of another method
        return None
    seen = importance > 0  # it is 0 where a value is missing
    if np.unique(importance[seen]).size < 2:  # a static mask has no importance
        return None
    n = seen.sum(0)
    mean = binned(importance.sum(0) / np.maximum(n, 1), n > 0, edges)  # (bins, D)
    varies = np.nan_to_num(np.nanstd(np.where(n.any(0), mean, 0), axis=0))
    rows = np.sort(np.argsort(-varies, kind="stable")[:ROWS])
    return {"variates": rows.tolist(), "values": plain(mean.T[rows])}


def clusters_of(found, names):
    """For each of the largest clusters its mean, and the sampled members nearest to its middle."""
    labels, E, trace = found["labels"], found["embedding"], found.get("trace")
    sizes = np.bincount(labels)
    clusters = []
    for c in sorted(np.argsort(-sizes, kind="stable")[:CLUSTERS]):
        if not sizes[c]:
            continue
        rows = np.flatnonzero(labels[found["shown"]] == c)  # among the sampled series
        away = np.linalg.norm(E[found["shown"][rows]] - E[labels == c].mean(0), axis=1)
        members = []
        for s in rows[np.argsort(away, kind="stable")[:MEMBERS]]:
            member = {"name": names[found["shown"][s]], "values": plain(found["series"][s].T)}
            if trace is not None:
                tenths = trace[:, s].astype(int) * 9 // 255  # (frames, bins, D')
                member["hidden"] = [["".join(map(str, v)) for v in frame.T] for frame in tenths]
            members.append(member)
        told = {"cluster": int(c), "size": int(sizes[c]), "mean": plain(found["means"][c].T)}
        clusters.append(told | {"members": members})
    return clusters


def content(folder, seed=None):
    """What the page says, as plain data; `seed`: else the one that agrees most with the others."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seeds = [record["seed"] for record in results["per_seed"]]
    labelings = [[int(row[f"seed_{s}"]) for row in rows] for s in seeds]
    agree = np.array([[ari(a, b) for b in labelings] for a in labelings])
    if seed is None:
        seed = seeds[int(agree.sum(0).argmax())]
    if seed not in seeds:
        raise ValueError(f"{folder} has no seed {seed}, but {', '.join(map(str, seeds))}")
    arrays = {}
    for s in seeds:
        with np.load(folder / f"seed_{s}.npz") as file:
            arrays[s] = {n: file[n] for n in (file.files if s == seed else ["record"])}
    histories = {s: json.loads(str(arrays[s]["record"]))["history"] for s in seeds}
    found = arrays[seed]
    if "means" not in found:
        raise ValueError(f"{folder} was made by an older version, which kept nothing for a page")
    classes = [row["class"] for row in rows]
    names = [f"{row.get('id') or row['sample']} {row['class']}".strip() for row in rows]
    points, at = plain(plane(found["embedding"])), spread(len(rows), POINTS)
    return {
        "results": results, "seed": seed, "seeds": seeds, "agree": plain(agree),
        "histories": histories, "edges": found["edges"].tolist(), "steps": results["shape"][1],
        "variates": found["variates"].tolist(), "clusters": clusters_of(found, names),
        "sizes": np.bincount(found["labels"], minlength=results["n_clusters"]).tolist(),
        "epochs": found["trace_epochs"].tolist() if "trace" in found else [],
        "points": [[*points[i], int(found["labels"][i]), classes[i], names[i]] for i in at],
        "importance": importance_by_time(found.get("importance"), found["edges"]),
        "pairs": [[c, int(k)] for c, k in zip(classes, found["labels"])] if classes[0] else None,
    }  # fmt: skip


def make(folder, seed=None):
    """Write `folder`/report.html; returns its path."""
    told = json.dumps(content(folder, seed), allow_nan=False).replace("<", "\\u003c")
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    write(folder / "report.html", template.replace("/*DATA*/null", told))
    return folder / "report.html"


def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m support.page", description=__doc__.split("\n")[0])
    p.add_argument("folder", type=Path, help="a run's folder, runs/<data>")
    p.add_argument("--seed", type=int, help="default: the seed that agrees most with the others")
    args = p.parse_args(argv)
    try:
        print(make(args.folder, args.seed))
    except (OSError, ValueError, KeyError) as error:
        told = f"{args.folder} holds no finished run: {error}"
        print(f"support.page: error: {' '.join(told.split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
