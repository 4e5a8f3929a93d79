"""The paper's t-SNE: embeddings before and after training, coloured by class and by cluster.

Before: untrained, without a mask. After: EMTC's last epoch. A t-SNE shows neighbours, not
distances. It is scikit-learn's; without it: the first two principal components.
"""

import sys

import numpy as np
import store
import study
import tables

from metrics import match
from support import page

WHEN = {"before": study.UNTRAINED, "after": {}}


def renamed(y, labels):
    """labels (N,), each cluster called as the class that it is matched with, others from g on."""
    table = np.zeros((int(labels.max()) + 1, int(y.max()) + 1), dtype=np.int64)
    np.add.at(table, (labels, y), 1)
    name = {int(c): int(j) for c, j in zip(*match(table))}
    return np.array([name.get(c, table.shape[1] + c) for c in labels.tolist()])


def plane(E, seed):
    """E (N, p) in two dimensions, (N, 2)."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        print("principal components instead of t-SNE: pip install scikit-learn")
        return page.plane(E)
    model = TSNE(perplexity=min(30.0, (len(E) - 1) / 3), init="pca", random_state=seed)
    return model.fit_transform(E)


def fit(args, dataset, seed, **options):
    """Embed, place in the plane, score; labels enter after training."""
    model, record = store.fitted(dataset, seed, **{"epochs": args.epochs, **options})
    place, labels = plane(model.embedding_, seed), renamed(dataset.y, model.labels_)
    return {**record, "place": place, "y": dataset.y, "labels": labels, "curves": {}}


def draw(axes, records):
    """A row a data set: before by class, by cluster, after by class, by cluster.

    Clusters wear the colour of the class that they are matched with.
    """
    for row, (data, pair) in zip(axes, records.items()):
        for k, (when, record) in enumerate(pair.items()):
            by_cluster = f"by cluster, ACC {record['ACC']:.2f}"
            titles = {f"{when} training, by class": record["y"], by_cluster: record["labels"]}
            for axis, (title, groups) in zip(row[2 * k :], titles.items()):
                for c in sorted(set(groups)):
                    colour, marker = tables.look(c)
                    points = np.array(record["place"])[np.array(groups) == c]
                    axis.scatter(*points.T, s=18, color=colour, marker=marker)
                axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
                axis.set_title(title, fontsize=10)
        row[0].set_ylabel(data, fontsize=10)


def main(argv=None):
    """Train, print, save, draw the first seed."""
    names = ("BasicMotions", "RacketSports", "NATOPS", "ArticularyWordRecognition")
    args = store.arguments("visualize", __doc__, argv, seeds=(0,), data=names)
    box = store.Store(args)
    study.fill(box, args, WHEN, fit)
    study.finish(box, "before", ("ACC", "NMI"))
    records = {}
    for record in box.runs:
        if record["seed"] == args.seeds[0]:
            records.setdefault(record["data"], {})[record["variant"]] = record
    shape = {"height": 0.2 + 2.45 * len(records), "nrows": len(records), "ncols": 4}
    tables.picture(args, lambda axes: draw(axes, records), width=10, squeeze=False, **shape)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
