"""What a finished run says: scores beside the paper's, how far seeds agree, what speaks for a g."""

import itertools
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import torch

from metrics import ari
from support.archive import arrays_of
from support.files import csv_text, write, write_json

# The paper's Tables 1 and 2: the only place of its numbers in this project.
PAPER = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
METRICS = ("ACC", "F1", "NMI", "ARI")
LAST = 5  # epochs over which label_change is averaged
MIN_AGREEMENT = 0.6  # below: the seeds found different clusters
MAX_CHANGE = 0.05  # above: the clusters were still moving when training ended
ORACLE = "uses the labels, as the paper's published code does"
READ = """\
How to read it: agreement is the mean ARI between the labelings of the seeds. Agreeing seeds and
clusters that lie apart make a g a candidate, no more: the embeddings were trained to form g
clusters, few clusters agree easily, and a cluster of one or two is mostly an outlier. Look at
report.html of each run before you believe one of them."""


def stats(rows):
    """[{metric: value}] -> {metric: {"mean", "std"}} over the seeds; None without scores."""
    if not rows or not rows[0]:
        return None
    values = {m: [row[m] for row in rows] for m in METRICS}
    return {m: {"mean": float(np.mean(v)), "std": float(np.std(v))} for m, v in values.items()}


def average(values):
    """The mean of those that are not None; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def agreement(labelings):
    """How far labelings (N,) agree: the mean ARI of their pairs; None for fewer than two."""
    return average(ari(a, b) for a, b in itertools.combinations(labelings, 2))


def diagnosis(done):
    """(agreement, label_change, verdict) of {seed: what `Run.finished` gives}; no class is read."""
    found = list(done.values())
    agree = agreement([f["labels"] for f in found])
    moved = average(r.get("label_change") for f in found for r in f["history"][-LAST:])
    doubts = []
    if agree is not None and agree < MIN_AGREEMENT:
        doubts.append(f"the seeds agree only {agree:.2f} (mean ARI)")
    if moved is not None and moved > MAX_CHANGE:
        doubts.append(f"{moved:.1%} of the labels still changed at the end")
    if any(f["record"]["clusters_used"] < f["record"]["clusters"] for f in found):
        doubts.append("a cluster stayed empty")
    if doubts:
        return agree, moved, f"looks unreliable: {'; '.join(doubts)}"
    if agree is None:
        return agree, moved, "one seed only: give more --seeds to see how far they agree"
    return agree, moved, f"looks reliable: the seeds agree {agree:.2f} (mean ARI)"


def papers_row(config):
    """EMTC's row of the paper's Table 2, if this run is on the data of its Table 1, else None."""
    row = PAPER["table1"]["datasets"].get(config["data"], {})
    # N is left out: Table 1 misprints that of two data sets.
    given = [config["split"], config["n_clusters"], *config["shape"][1:]]
    if given != ["test", row.get("g"), row.get("T"), row.get("D")]:
        return None
    row = PAPER["table2"]["results"][config["data"]]
    return {m: dict(zip(("mean", "std"), row[m]["EMTC"], strict=True)) for m in ("ACC", "F1")}


def save_results(run, data, done):
    """Write results.json and labels.csv of the finished seeds; returns what is in results.json."""
    config = run.config
    done = {seed: done[seed] for seed in config["seeds"] if seed in done}
    found = list(done.values())
    base = [f["baselines"] or {} for f in found]
    results = {
        **{key: config[key] for key in ("data", "split", "shape", "n_clusters", "method", "seeds")},
        "final": stats([f["record"] for f in found] if data.y is not None else None),
        "per_seed": [f["record"] for f in found],
        "baselines": {n: stats([b.get(n) for b in base]) for n in ("raw_kmeans", "untrained")},
        "paper": papers_row(config),
        **dict(zip(("agreement", "label_change", "verdict"), diagnosis(done), strict=True)),
        **{"data_hash": config["data_hash"], "threads": torch.get_num_threads()},
        "versions": {"torch": config["torch"], "numpy": config["numpy"]},
    }
    if config["oracle"]:
        per_seed = [{"seed": seed, **f["oracle"]} for seed, f in done.items()]
        results["oracle"] = {**stats(per_seed), "note": ORACLE, "per_seed": per_seed}
    write_json(run.folder / "results.json", results)
    columns = {f"seed_{seed}": f["labels"] for seed, f in done.items()}
    write(run.folder / "labels.csv", labels_csv(data, columns))
    return results


def labels_csv(data, columns, classes=True):
    """A row a sample as CSV: its number, its id if it has one, its class, and the `columns`."""
    table = {"sample": range(len(data.X))} | ({"id": data.ids} if data.ids else {})
    if classes:
        table["class"] = [""] * len(data.X) if data.y is None else [data.classes[c] for c in data.y]
    return csv_text(table | columns)


def report(results):
    """The table: each seed, the mean, what needs no training, the paper; then the verdict."""

    def row(label, cells):
        return f"{label:<26}" + "".join(f"{cell:>13}" for cell in cells).rstrip()

    def short(*numbers):
        return " ± ".join(f"{number:.3f}".replace("0.", ".", 1) for number in numbers)

    def spread(label, of):
        return row(label, [short(*of[m].values()) if m in of else "-" for m in METRICS])

    lines, base, per_seed = [], results["baselines"], results["per_seed"]
    best = {"  the paper's EMTC": results["paper"], "  here (--oracle)": results.get("oracle")}
    best = [spread(label, of) for label, of in best.items() if of]
    if results["final"]:
        lines += [row("last epoch", METRICS)]
        lines += [row(f"  seed {s['seed']}", [short(s[m]) for m in METRICS]) for s in per_seed]
        lines += [spread("  mean ± std", results["final"]), "without training"]
        lines += [spread("  k-means on raw values", base["raw_kmeans"])]
        lines += [spread("  k-means, untrained net", base["untrained"])]
        lines += [f"best epoch, {ORACLE}", *best] if best else []
    return "\n".join([*lines, *textwrap.wrap(results["verdict"], 80, subsequent_indent="  ")])


def table1():
    """The paper's Table 1."""
    rows = {"Table 1": {title: title for title in "NTDg"}} | PAPER["table1"]["datasets"]
    lines = [f"{name:<24}{r['N']:>6}{r['T']:>7}{r['D']:>6}{r['g']:>4}" for name, r in rows.items()]
    lines.append("as printed; the archive's test splits of HandMovementDirection and DuckDuckGeese")
    lines.append("have 74 and 50 series, which is also what the paper's Table 2 was computed on")
    return "\n".join(lines)


def silhouette(E, labels, most=2000):
    """Mean silhouette of embeddings E (N, p): (b - a) / max(a, b), with a a sample's mean distance
    to its own cluster and b that to the nearest other one; 0 for one alone in its cluster. None for
    a single cluster. Of more than `most` samples every k-th is taken.
    """
    step = -(-len(E) // most)
    E, labels = torch.tensor(E[::step]).double(), np.asarray(labels)[::step]
    member = labels[:, None] == np.unique(labels)  # (N, g)
    if member.shape[1] < 2:
        return None
    apart = torch.cdist(E, E, compute_mode="donot_use_mm_for_euclid_dist").numpy()  # (N, N)
    total, size = apart @ member, member.sum(0)  # (N, g), (g,)
    own = size[member.argmax(1)]  # (N,)
    a = total[member] / np.maximum(own - 1, 1)
    b = np.where(member, np.inf, total / size).min(1)
    return float(np.where(own == 1, 0, (b - a) / np.maximum(np.maximum(a, b), 1e-12)).mean())


def check_folder(folder):
    """ValueError where `folder` holds more than runs named by their g and what compares them."""
    ours = r"g\d+(\.\d+)?|choice\.json|labels\.csv|\.lock|.*\.part"
    if foreign := [file.name for file in folder.glob("*") if not re.fullmatch(ours, file.name)]:
        raise ValueError(f"{folder} holds {foreign[0]}, no run of a g; give another --out")


def compare(folder, clusters, data):
    """Write choice.json and labels.csv for the runs folder/g<g>; returns their table."""
    rows, columns, lines = [], {}, []
    for g in clusters:
        results = json.loads((folder / f"g{g}" / "results.json").read_text(encoding="utf-8"))
        files = {seed: folder / f"g{g}" / f"seed_{seed}.npz" for seed in results["seeds"]}
        found = {seed: arrays_of(files[seed], ("labels", "embedding")) for seed in files}
        columns |= {f"g{g}_seed_{seed}": f["labels"] for seed, f in found.items()}
        apart = average(silhouette(f["embedding"], f["labels"]) for f in found.values())
        smallest = min(int(np.bincount(f["labels"], minlength=g).min()) for f in found.values())
        agree = results["agreement"]
        rows.append({"clusters": g, "agreement": agree, "silhouette": apart, "smallest": smallest})
        cells = ["-" if value is None else f"{value:.2f}" for value in (agree, apart)]
        lines.append(f"{g:>4}{cells[0]:>12}{cells[1]:>12}{smallest:>18}")
    g = suggested(rows)
    write_json(folder / "choice.json", {"suggestion": g, "rows": rows})
    write(folder / "labels.csv", labels_csv(data, columns))
    head = f"{'g':>4}{'agreement':>12}{'silhouette':>12}{'smallest cluster':>18}"
    told = f"Suggestion: g = {g}, the highest silhouette among those whose seeds agree."
    if g is None:
        told = f"No suggestion: no g where seeds agree by {MIN_AGREEMENT} and no cluster is empty."
    return "\n".join([head, *lines, READ, told])


def suggested(rows):
    """The g of the highest silhouette, if its seeds agree and all its clusters are in use."""
    sure = [r for r in rows if (r["agreement"] or 0) >= MIN_AGREEMENT and r["smallest"] > 0]
    sure = [r for r in sure if r["silhouette"] is not None]
    return max(sure, key=lambda r: r["silhouette"])["clusters"] if sure else None
