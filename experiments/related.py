"""SimMTM and MUG judged by what their papers claim, as far as small data go.

    python experiments/related.py             all of it; resumes where results/related.json ends
    python experiments/related.py --quick     one data set, one seed, few steps; saves nothing
    python experiments/related.py --table     prints the tables of related/README.md
    python experiments/related.py --readme    puts them there

Every model is trained on the TRAIN split without labels for the same number of steps, taken at its
last epoch, and judged on the TEST split: k-means on the test representation (ACC, NMI, ARI),
and 5-NN from train to test (the only place where training labels enter). Beside each: the same
network untrained, and the raw series. Nothing is picked by a score.

    SimMTM  claim 1: more masked copies M rebuild better. rec: mean squared error of held-out series
            (variance 1), rebuilt from the M copies that the model was trained with; rec3: from 3.
            claim 2: trained features beat untrained ones (M = 3)
    MUG     claim 1: both granularities beat either alone. claim 2: Spearman beats InfoNCE.
            Under reading A (literal) and under the masked query (our deviation)
"""
import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, whose related.py would hide the package
from kmeans import kmeans
from metrics import scores
from related.common import ZScore, load_splits
from related.mug import MUG
from related.simmtm import SimMTM

DATA = ("BasicMotions", "GunPoint", "ArrowHead", "ItalyPowerDemand", "OSULeaf", "RacketSports",
        "NATOPS", "JapaneseVowels", "ACSF1")
STEPS = {"simmtm": 160, "mug": 80}
MUG_VARIANTS = [{"reading": r, "objective": o, "granularity": g}
                for r in ("A", "masked-query")
                for o, g in (("spearman", "both"), ("infonce", "both"), ("spearman", "fine"),
                             ("spearman", "coarse"))]


def load_pair(name, folders):
    """X, y of the train and of the test split and the number of classes; one T for both splits."""
    train, test = load_splits(name, folders)
    return train.X, train.y, test.X, test.y, len(train.classes)


def nearest(F_train, y_train, F_test, k=5):
    """Labels by the majority of the k nearest training rows; the smaller label at a draw."""
    gaps = torch.cdist(torch.from_numpy(F_test), torch.from_numpy(F_train))
    near = y_train[gaps.topk(min(k, len(y_train)), largest=False).indices.numpy()]  # (n_test, k)
    return np.array([np.bincount(row).argmax() for row in near])


def judge(F_train, F_test, data, seed):
    """Scores of a representation: k-means on the test rows and 5-NN, both on standardised features."""
    _, y_train, _, y_test, k = data
    mean, std = F_train.mean(0), np.maximum(F_train.std(0), 1e-6)
    F_train, F_test = (((F - mean) / std).astype(np.float32) for F in (F_train, F_test))
    found = scores(y_test, kmeans(torch.from_numpy(F_test), k, seed=seed).labels)
    found.pop("F1")
    return found | {"5NN": float((nearest(F_train, y_train, F_test) == y_test).mean())}


def judged(model, data, seed):
    """Fit the model on the train split; its scores on the test split and the parts of its loss."""
    start = time.perf_counter()
    model.fit(data[0])
    found = judge(model.transform(data[0]), model.transform(data[2]), data, seed)
    return found | model.evaluate(data[2]) | {"seconds": round(time.perf_counter() - start, 2)}


def run_simmtm(data, epochs, seed):
    found = {}
    for label, M, n in [("untrained", 3, 0)] + [(f"M={M}", M, epochs) for M in (1, 2, 3, 4)]:
        model = SimMTM(epochs=n, seed=seed, M=M)
        found[label] = judged(model, data, seed)
        model.M = 3
        found[label]["rec3"] = model.evaluate(data[2])["rec"]
    return found


def mug_label(reading, objective, granularity):
    return f"{reading} {objective} {granularity}"


def run_mug(data, epochs, seed):
    found = {f"untrained {g}": judged(MUG(epochs=0, seed=seed, granularity=g), data, seed)
             for g in ("both", "fine", "coarse")}
    for v in MUG_VARIANTS:
        found[mug_label(**v)] = judged(MUG(epochs=epochs, seed=seed, **v), data, seed)
    return found


def run_one(method, name, seed, steps, folders):
    data = load_pair(name, folders)
    X_train, _, X_test, _, k = data
    epochs = max(1, round(steps / math.ceil(len(X_train) / 32)))
    scale = ZScore(X_train)
    raw = judge(*(scale(X).reshape(len(X), -1) for X in (X_train, X_test)), data, seed)
    runs = {"simmtm": run_simmtm, "mug": run_mug}[method](data, epochs, seed)
    return {"method": method, "data": name, "seed": seed, "epochs": epochs, "train": len(X_train),
            "test": len(X_test), "T": X_train.shape[1], "D": X_train.shape[2], "classes": k,
            "runs": {"raw": raw} | runs}


def save(path, records):
    """Write beside and rename, so that a stop half way leaves the older file whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(records, indent=1) + "\n")
    part.replace(path)


# The tables

def cell(records, data, run, key):
    values = [r["runs"][run][key] for r in records if r["data"] == data]
    return f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"


def table(records, title, sets, columns):
    """A markdown table; columns are (head, run, key)."""
    lines = [f"**{title}**", "", "| data (seeds) | " + " | ".join(c[0] for c in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for data in sets:
        n = sum(r["data"] == data for r in records)
        lines.append(f"| {data} ({n}) | " + " | ".join(cell(records, data, *c[1:]) for c in columns) + " |")
    return lines + [""]


def wins(records, key, run, other, sign=1):
    """In how many (data, seed) pairs `run` is better than `other` by `key`; sign -1: less is better."""
    gaps = [sign * (r["runs"][run][key] - r["runs"][other][key]) for r in records]
    mean = statistics.mean(gaps) * sign
    return (f"- {key}: *{run}* against *{other}*: better in {sum(g > 0 for g in gaps)}, equal in "
            f"{sum(g == 0 for g in gaps)}, worse in {sum(g < 0 for g in gaps)} of {len(gaps)} "
            f"(data, seed) pairs; mean difference {mean:+.3f}")


def simmtm_tables(records, sets):
    Ms = [f"M={M}" for M in (1, 2, 3, 4)]
    lines = table(records, "SimMTM, held-out reconstruction error (rec)", sets,
                  [("untrained, M=3", "untrained", "rec")] + [(M, M, "rec") for M in Ms])
    lines += [wins(records, "rec", b, a, -1) for a, b in zip(Ms, Ms[1:])]
    lines += [wins(records, "rec3", b, a, -1) for a, b in zip(Ms, Ms[1:])] + [""]
    for key in ("ACC", "5NN"):
        lines += table(records, f"SimMTM, {key} of the features", sets, [
            ("raw series", "raw", key), ("untrained", "untrained", key), ("M=1", "M=1", key),
            ("M=3 (default)", "M=3", key)])
        lines += [wins(records, key, "M=3", b) for b in ("untrained", "M=1", "raw")] + [""]
    return lines + table(records, "SimMTM, weight on a row's own relatives (own), held out", sets, [
        ("untrained, M=3", "untrained", "own"), ("M=3", "M=3", "own")])


def mug_tables(records, sets):
    lines = []
    for key in ("ACC", "5NN"):
        lines += table(records, f"MUG, {key}: untrained controls", sets, [
            ("raw series", "raw", key)] + [(g, f"untrained {g}", key) for g in
                                           ("both", "fine", "coarse")])
        for reading in ("A", "masked-query"):
            runs = [mug_label(**v) for v in MUG_VARIANTS if v["reading"] == reading]
            lines += table(records, f"MUG, {key}: reading {reading}", sets,
                           [(r.removeprefix(reading + " "), r, key) for r in runs])
            lines += [wins(records, key, runs[0], b) for b in runs[1:] + ["untrained both"]] + [""]
    return lines + table(records, "MUG, hit: a query's best candidate in its batch is its own series"
                         " (held out)", sets, [("A, untrained", "untrained both", "hit"),
                         ("A, trained", "A spearman both", "hit"),
                         ("masked-query, trained", "masked-query spearman both", "hit")])


def tables(records):
    """All tables of both methods as one markdown text."""
    lines = []
    for method, build in (("simmtm", simmtm_tables), ("mug", mug_tables)):
        mine = [r for r in records if r["method"] == method]
        if mine:
            lines += [f"Mean ± population standard deviation over seeds; about {STEPS[method]} steps; last epoch.", ""]
            lines += build(mine, list(dict.fromkeys(r["data"] for r in mine)))
    return "\n".join(lines).strip()


def into_readme(text, path=ROOT / "related" / "README.md"):
    """Put the tables between the two markers of related/README.md."""
    begin, end = "<!-- related.json: begin -->\n", "\n<!-- related.json: end -->"
    head, rest = path.read_text().split(begin)
    path.write_text(head + begin + text + end + rest.split(end)[1])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", nargs="+", default=DATA, help="data sets; default: all nine")
    p.add_argument("--methods", nargs="+", default=["simmtm", "mug"], choices=("simmtm", "mug"))
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--data-dir", nargs="+", help="folders to look in, e.g. .../aeon/datasets/data")
    p.add_argument("--out", type=Path, default=ROOT / "results" / "related.json")
    p.add_argument("--quick", action="store_true", help="BasicMotions, seed 0, 4 steps; not saved")
    p.add_argument("--table", action="store_true", help="print the tables of --out and stop")
    p.add_argument("--readme", action="store_true", help="put them into related/README.md and stop")
    args = p.parse_args()
    records = json.loads(args.out.read_text()) if args.out.exists() and not args.quick else []
    if (args.table or args.readme) and not records:
        sys.exit(f"error: no runs in {args.out} to make tables of" if not args.quick else
                 "error: --quick saves nothing to make tables of")
    if args.table:
        return print(tables(records))
    if args.readme:
        return into_readme(tables(records))
    if args.quick:
        args.data, args.seeds = ["BasicMotions"], [0]
    done = {(r["method"], r["data"], r["seed"]) for r in records}
    todo = [(m, d, s) for s in args.seeds for m in args.methods for d in args.data]
    torch.set_num_threads(1)  # so that a run repeats bit for bit on machines of any number of cores
    failed = False
    for job in [job for job in todo if job not in done]:
        try:
            record = run_one(*job, 4 if args.quick else STEPS[job[0]], args.data_dir)
        except (ValueError, FloatingPointError) as error:
            print(f"{' '.join(map(str, job))}: {error}", file=sys.stderr)
            failed = True
            continue
        records.append(record)
        if not args.quick:
            save(args.out, records)
        print(*job, {k: round(v["ACC"], 3) for k, v in record["runs"].items()}, flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
