"""The paper's t-SNE: embeddings before and after training, coloured by class and by cluster.

Before: untrained, without a mask, as in table2.py. After: EMTC's last epoch. A t-SNE shows
neighbours, not distances, so the JSON also holds what needs no picture: how many of a sample's 5
nearest neighbours in the embedding itself share its class. t-SNE is scikit-learn's; without it the
picture shows the first two principal components.

    python experiments/visualize.py
"""

import sys

import numpy as np
import store
import study
import tables
import torch

from metrics import match

NEIGHBOURS = 5
WHEN = {"before": study.UNTRAINED, "after": {}}


def purity(E, y):
    """Mean share of each row's nearest neighbours in E (N, p) that share its class y (N,)."""
    D = torch.cdist(torch.from_numpy(E), torch.from_numpy(E)).fill_diagonal_(float("inf"))
    near = D.topk(min(NEIGHBOURS, len(E) - 1), largest=False).indices.numpy()  # (N, 5)
    return float((y[near] == y[:, None]).mean())


def renamed(y, labels):
    """labels (N,), each cluster called as the class that it is matched with, others from g on."""
    table = np.zeros((int(labels.max()) + 1, int(y.max()) + 1), dtype=np.int64)
    np.add.at(table, (labels, y), 1)
    name = {int(c): int(j) for c, j in zip(*match(table))}
    return np.array([name.get(c, table.shape[1] + c) for c in labels.tolist()])


def plane(E, seed):
    """E (N, p) in two dimensions, and by what."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        print("principal components instead of t-SNE: pip install scikit-learn")
        U, S, _ = np.linalg.svd(E - E.mean(0), full_matrices=False)
        return (U * S)[:, :2], "principal components"
    model = TSNE(perplexity=min(30.0, (len(E) - 1) / 3), init="pca", random_state=seed)
    return model.fit_transform(E), "t-SNE"


def run(args, dataset, when, seed):
    """Embed, place in the plane, score; labels enter after training."""
    model, record = store.fitted(dataset, seed, **{"epochs": args.epochs, **WHEN[when]})
    place, how = plane(model.embedding_, seed)
    record |= {"purity": purity(model.embedding_, dataset.y), "place": place, "how": how}
    return {**record, "y": dataset.y, "labels": renamed(dataset.y, model.labels_), "curves": {}}


def scatter(axis, record, groups):
    """The points of one record, coloured by groups (N,); clusters wear their class's colour."""
    place, groups = np.array(record["place"]), np.array(groups)
    for k in sorted(set(groups.tolist())):
        colour, marker = tables.look(k)
        axis.scatter(*place[groups == k].T, s=18, color=colour, marker=marker)
    axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")


def draw(axes, records):
    """A row a data set: before by class, by cluster, after by class, by cluster."""
    for row, (data, pair) in zip(axes, records.items()):
        for k, (when, record) in enumerate(pair.items()):
            scatter(row[2 * k], record, record["y"])
            scatter(row[2 * k + 1], record, record["labels"])
            row[2 * k].set_title(f"{when} training, by class", fontsize=10)
            row[2 * k + 1].set_title(f"by cluster, ACC {record['ACC']:.2f}", fontsize=10)
        row[0].set_ylabel(data, fontsize=10)


def main(argv=None):
    """Train, print, save, draw the first seed; returns 0."""
    names = ("BasicMotions", "RacketSports", "NATOPS", "ArticularyWordRecognition")
    args = store.arguments("visualize", __doc__, argv, seeds=(0,), data=names)
    box = store.Store(args, **store.settings(args))
    store.sweep(box, args, list(WHEN), lambda *work: run(args, *work))
    table = tables.summary(box.runs, (*tables.METRICS, "purity"))
    text = tables.show(table, ("ACC", "purity"))
    box.finish(table=table, average=tables.average(table), text=text)
    at = {(r["data"], r["variant"]): r for r in box.runs if r["seed"] == args.seeds[0]}
    records = {d: {when: at[d, when] for when in WHEN} for d in table if (d, "after") in at}
    n = len(records)
    shape = {"height": 0.2 + 2.45 * n, "nrows": n, "ncols": 4, "squeeze": False}
    tables.picture(args, lambda figure, axes: draw(axes, records), width=10, **shape)
    return 0


if __name__ == "__main__":
    sys.exit(store.run_main(main))
