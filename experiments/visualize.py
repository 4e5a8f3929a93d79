"""The paper's t-SNE: embeddings before and after training, coloured by class and by cluster.

Before: the untrained encoders without a mask, as in table2.py. After: EMTC's last epoch. A t-SNE shows neighbours,
not distances, so the JSON also holds what needs no picture: how many of a sample's 5 nearest neighbours in the
embedding itself share its class.

    python experiments/visualize.py
"""

import sys

import numpy as np
import torch

import common
import recorded
import studies
from emtc import EMTC
from metrics import match, scores
from tsne import tsne

NEIGHBOURS = 5
WHEN = {"before": {"epochs": 0, "mask": "none"}, "after": {}}
COLOURS = (*common.COLOURS[:7], "#999999", "#882255", "#44AA99", "#DDCC77", "#332288")


def purity(E, y):
    """Mean share of each row's nearest neighbours in E (N, p) that share its class y (N,)."""
    D = torch.cdist(torch.from_numpy(E), torch.from_numpy(E)).fill_diagonal_(float("inf"))
    near = D.topk(min(NEIGHBOURS, len(E) - 1), largest=False).indices.numpy()  # (N, 5)
    return float((y[near] == y[:, None]).mean())


def renamed(y, labels):
    """labels (N,) with each cluster called as the class that it is matched with; unmatched ones count on from g."""
    g, k = int(y.max()) + 1, int(labels.max()) + 1
    table = np.zeros((k, g), dtype=np.int64)
    np.add.at(table, (labels, y), 1)
    name, spare = {int(c): int(j) for c, j in zip(*match(table))}, iter(range(g, g + k))
    return np.array([name[c] if c in name else name.setdefault(c, next(spare)) for c in labels.tolist()])


def run(args, dataset, when, seed):
    """Embed, place in the plane, score; labels enter after training."""
    if dataset.y is None:
        raise common.UserError(f"{dataset.name} has no labels: there is nothing to colour")
    model = EMTC(len(dataset.classes), seed=seed, **{"epochs": args.epochs, **WHEN[when]}).fit(dataset.X)
    E = model.embedding_
    place = tsne(E, perplexity=min(30.0, (len(E) - 1) / 3), seed=seed)
    return {**scores(dataset.y, model.labels_), "purity": purity(E, dataset.y),
            "labels": renamed(dataset.y, model.labels_), "y": dataset.y, "classes": dataset.classes, "tsne": place}


def look(k):
    """(colour, marker) of class or cluster number k: both differ, and repeat together after 12 * 8."""
    return COLOURS[k % len(COLOURS)], studies.MARKERS[(k + k // len(COLOURS)) % len(studies.MARKERS)]


def scatter(axis, record, groups):
    """The points of one record, coloured by groups (N,)."""
    place, groups = np.array(record["tsne"]), np.array(groups)
    for k in sorted(set(groups.tolist())):
        colour, marker = look(k)
        name = record["classes"][k] if k < len(record["classes"]) else f"cluster {k + 1}"
        axis.scatter(*place[groups == k].T, s=22, color=colour, marker=marker, linewidths=0.4, edgecolors="white",
                     label=name)
    axis.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axis.grid(visible=False)
    axis.spines[["top", "right"]].set_visible(True)


def draw(figure, axes, records):
    """A row a data set; before by class, by cluster, after by class, by cluster. Clusters wear their class's colour."""
    for row, (data, pair) in zip(axes, records.items()):
        for k, (when, record) in enumerate(pair.items()):
            scatter(row[2 * k], record, record["y"])
            scatter(row[2 * k + 1], record, record["labels"])
            row[2 * k].set_title(f"{when} training, by class", fontsize=10)
            row[2 * k + 1].set_title(f"by cluster, ACC {record['ACC']:.2f}", fontsize=10)
        row[0].set_ylabel(data, fontsize=10)
        if len(pair["after"]["classes"]) <= 10:
            row[-1].legend(*row[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9,
                           handletextpad=0.1)


def main(argv=None):
    """Train, print, save, draw the first seed; returns 0."""
    args = common.arguments("visualize", __doc__, argv, seeds=(0,),
                            data=["BasicMotions", "RacketSports", "NATOPS", "ArticularyWordRecognition"])
    store = common.Store(args, code=(*recorded.CODE, "experiments/tsne"), **recorded.settings(args))
    common.sweep(store, args, list(WHEN), lambda *work: run(args, *work))
    table = common.summary(store.runs, (*common.METRICS, "purity"))
    studies.show(table, ("ACC", "purity"))
    store.finish(table=table)
    at = {(r["data"], r["variant"]): r for r in store.runs if r["seed"] == args.seeds[0]}
    names = [n for n in dict.fromkeys(r["data"] for r in store.runs) if (n, "after") in at and (n, "before") in at]
    records = {n: {when: at[n, when] for when in WHEN} for n in names}
    common.picture(args, lambda figure, axes: draw(figure, axes, records), height=0.2 + 2.45 * len(records), width=10,
                   nrows=len(records), ncols=4, squeeze=False)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
