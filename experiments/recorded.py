"""One run of EMTC, recorded epoch by epoch; every experiment takes its numbers from here.

    record = recorded.run(args, dataset, seed, epsilon=0.4)   # options of EMTC that are not the default

Runs lie in <out>/cache under a fingerprint of all that shapes them (data, seed, every option of EMTC, code,
torch), so that the whole method is trained once and not once a script; the folder may be deleted at any time.
A stopped run goes on at its last checkpoint. EMTC sees no labels: they are read here, beside it, to score.
"""

import hashlib
import inspect
import itertools
import json
import os
import sys
import time

import numpy as np
import torch

import common
from emtc import EMTC
from metrics import ari, scores

LAST = 5          # epochs at the end over which label_change is a mean
CHECKPOINT = 120  # seconds between two checkpoints
CODE = ("emtc", "kmeans", "metrics")
common.code_hash(*CODE)  # now, since these files may change while a long run goes on with what it has imported


def defaults():
    """{option: default} of EMTC, without seed and device: what "the default setting" was when a file was made."""
    options = inspect.signature(EMTC).parameters.values()
    return {p.name: common.plain(p.default) for p in options
            if p.default is not p.empty and p.name not in ("seed", "device")}


def settings(args):
    """What shapes every record of a script, for common.Store."""
    return {**defaults(), "epochs": args.epochs}


def cached(args, make, code=CODE, **key):
    """The dict make(path of a half-done run) -> JSON values, from <out>/cache if it was made there before."""
    key = {**key, "made_by": common.code_hash(*code), "torch": torch.__version__}
    name = hashlib.sha256(json.dumps(common.plain(key), sort_keys=True).encode()).hexdigest()[:20]
    path = args.out / "cache" / f"{key['data']}-{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")
        common.write_json(path, make(path.with_suffix(".pt")))
    return json.loads(path.read_text(encoding="utf-8"))


def run(args, dataset, seed, **options):
    """Fit EMTC with `options` (epochs: args.epochs) on dataset.X; a dict:

    ACC, F1, NMI, ARI    of the last epoch, the only one that a user without labels can have
    oracle               {"epoch", ACC, ...} of the epoch with the best ACC: picked by the labels
    epochs, kept         epochs run; share of the observed entries that the last mask keeps
    label_change         share of labels that changed an epoch, mean over the last LAST epochs
    labels               (N,) ints; train_seconds, parameters
    curves               {"total", "contra", "intra", "inter", "kept", "label_change", "ACC", "NMI", "ARI",
                         "step_ari" (ARI to the epoch before)}: one value an epoch
    """
    if dataset.y is None:
        raise common.UserError(f"{dataset.name} has no labels: there is nothing to score")
    options = {"epochs": args.epochs, **options}
    return cached(args, lambda half: _train(dataset, seed, options, half), data=dataset.name, seed=seed,
                  data_hash=common.content_hash(dataset), options={**defaults(), **options})


def _train(dataset, seed, options, half):
    start, rows, before, saved = time.perf_counter(), [], [], [time.perf_counter()]
    try:
        model = EMTC(len(dataset.classes), seed=seed, **options)
    except ValueError as error:
        raise common.UserError(str(error)) from None
    state = torch.load(half, weights_only=True) if half.exists() else None
    if state:
        rows, before, start = state["rows"], [np.array(state["labels"])], start - state["seconds"]

    def on_epoch(model, record):
        labels, now = model.labels_, time.perf_counter()
        step = ari(before.pop(), labels) if before else None
        rows.append({**record, **scores(dataset.y, labels), "step_ari": step})
        before.append(labels)
        if sys.stderr.isatty():
            print(f"\r    epoch {record['epoch']}/{model.epochs}, {now - start:.0f} s  ", end="", file=sys.stderr)
        if now - saved[0] > CHECKPOINT:
            torch.save({"fit": model.checkpoint(), "rows": rows, "labels": labels.tolist(), "seconds": now - start},
                       half.with_suffix(".part"))
            os.replace(half.with_suffix(".part"), half)
            saved[0] = now

    try:
        model.fit(dataset.X, on_epoch=on_epoch, resume=state and state["fit"])
    except FloatingPointError as error:
        raise common.UserError(f"{dataset.name}, seed {seed}: {error}") from None
    seconds = time.perf_counter() - start
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    if half.exists():
        os.remove(half)
    return _record(model, dataset, rows, seconds)


def _record(model, dataset, rows, seconds):
    last = scores(dataset.y, model.labels_)
    # the labels after the last mask are one more reading, so that the oracle is never below the last epoch
    readings = [{"epoch": len(rows), **last}, *({m: row[m] for m in ("epoch", *common.METRICS)} for row in rows)]
    names = [name for name in rows[0] if name not in ("epoch", "F1")] if rows else []
    return {**last, "oracle": max(readings, key=lambda r: r["ACC"]), "epochs": len(rows),
            "kept": float(model.mask_.sum() / (~np.isnan(dataset.X)).sum()),
            "label_change": float(np.mean([row["label_change"] for row in rows[-LAST:]])) if rows else None,
            "train_seconds": seconds, "parameters": sum(p.numel() for p in model.net_.parameters()),
            "labels": model.labels_, "curves": {name: [row[name] for row in rows] for name in names}}


def without(record, *names):
    """`record` without these entries: what a file need not repeat."""
    return {key: value for key, value in record.items() if key not in names}


def agreement(labelings):
    """Mean pairwise ARI of labelings, each (N,); None for fewer than two. Needs no true labels."""
    pairs = list(itertools.combinations(labelings, 2))
    return float(np.mean([ari(a, b) for a, b in pairs])) if pairs else None
