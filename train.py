"""Cluster a data set: load, fit seed by seed, score the last epoch, report, save.

    python train.py --data BasicMotions

The labels of a data set never reach the training: they only score what came out of it. How a
run's folder outlives kills and full disks is in run_folder.py; `--help` tells the rest.
"""

import argparse
import csv
import hashlib
import importlib
import inspect
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

import emtc
from kmeans import kmeans
from metrics import ari, scores
from run_folder import Run, intact, write, write_json
from uea_loader import FORMATS, load

# The paper's Table 1 (N, T, D, classes g) and EMTC's row of its Table 2: mean and std of ACC, of F1.
PAPER = {
    "BasicMotions": (40, 100, 6, 4, .9083, .0656, .9057, .0675),
    "Cricket": (72, 1197, 6, 12, .5972, .0227, .6317, .0366),
    "DuckDuckGeese": (40, 270, 1345, 5, .4800, .0163, .4917, .0357),
    "EigenWorms": (131, 17984, 6, 5, .4707, .0095, .3713, .0549),
    "Epilepsy": (138, 206, 3, 4, .5556, .0239, .5519, .0276),
    "FingerMovements": (100, 50, 28, 2, .5967, .0094, .5892, .0151),
    "HandMovementDirection": (147, 400, 10, 4, .4640, .0064, .3737, .0262),
    "Heartbeat": (205, 405, 61, 2, .7463, .0040, .6134, .0329),
    "MotorImagery": (100, 3000, 64, 2, .6500, .0216, .6452, .0213),
    "NATOPS": (180, 51, 24, 6, .6185, .0094, .6205, .0130),
    "PEMS-SF": (173, 144, 963, 7, .5780, .0164, .6215, .0398),
    "RacketSports": (152, 30, 6, 4, .4715, .0135, .4657, .0695),
    "SelfRegulationSCP1": (293, 896, 6, 2, .8510, .0126, .8500, .0135),
    "SelfRegulationSCP2": (180, 1152, 7, 2, .6000, .0253, .5850, .0244),
    "StandWalkJump": (15, 2500, 4, 3, .7556, .0831, .7382, .1048),
}
METRICS = ("ACC", "F1", "NMI", "ARI")
METHODS = {"emtc": ("emtc", "EMTC"), "simmtm": ("related.simmtm", "SimMTM"),
           "nc-vqvae": ("related.nc_vqvae", "NCVQVAE"), "mug": ("related.mug", "MUG")}
LAST = 5            # epochs over which label_change is averaged
MIN_AGREEMENT = .6  # below: the seeds found different clusters
MAX_CHANGE = .05    # above: the clusters were still moving when training ended
ORACLE = "uses the labels: the paper's own protocol"

# ------------------------------------------------------------------ options

OPTIONS = {  # parameter -> what --help says; types and defaults are read off the method itself
    "epochs": "the most epochs; 0 leaves the network untrained",
    "n_views": "V, the number of encoders",
    "epsilon": "importance from which an entry is kept, Eq. (3)",
    "tau": "temperature of the contrastive loss, Eq. (11)",
    "alpha": "weight of the intra-view loss, Eq. (13)",
    "beta": "weight of the inter-view loss, Eq. (13)",
    "lr": "learning rate of Adam",
    "batch_size": "series a step",
    "width": "h, channels of a view",
    "mask": "how the mask is found",
    "keep": "share that the static masks keep",
    "drop": "parts of EMTC to leave out",
    "patience": "so many epochs with at most 1 %% of the labels changed in each end the training",
    "max_keys": "timestamps that each one attends to, Eq. (2); fewer for very long series",
    "device": "auto, cpu, cuda, cuda:1, ...",
}
CHOICES = {"mask": emtc.MASKS, "drop": emtc.PARTS}
EPILOG = f"""
The run's folder (--out, or runs/<data>; runs/<data>-<method> for the related methods) gets config.json,
results.json, labels.csv, log.jsonl, and of each seed seed_<s>.npz (embedding, labels; of EMTC also
importance and mask). EMTC also leaves model_seed<s>.pt; its checkpoint_seed<s>.pt, renewed after every
epoch, goes with its seed's end.
A new run into the folder of an older one renames that to <folder>.1, .2, ...: nothing is
overwritten. --resume goes on after the last whole epoch, given the same options; if the run is
finished it prints the table again. On a CPU the numbers are those of a run that never stopped, bit
for bit, with the same number of threads. (The related methods go on by whole seeds.)
A run looks unreliable when its seeds agree by less than {MIN_AGREEMENT} (mean ARI between their
labelings), when more than {MAX_CHANGE:.0%} of the labels still changed in the last {LAST} epochs, or when a
cluster stayed empty.
Standard deviations are the population's. Exit status: 0, 2 for bad input, 130 for Ctrl-C.
"""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")  # one line, without the usage


def finite(text):
    if not math.isfinite(value := float(text)):
        raise ValueError  # argparse turns it into: argument --lr: invalid finite value: 'nan'
    return value


def whole(text):
    if not 0 <= (value := int(text)) < 2 ** 62:
        raise ValueError
    return value


def defaults(cls):
    """{parameter: default} of the options that a method has."""
    given = inspect.signature(cls).parameters
    return {name: given[name].default for name in OPTIONS if name in given}


def flag(name):
    return "--" + name.removeprefix("n_").replace("_", "-")


def parser():
    p = Parser(prog="train.py", description=__doc__.split("\n")[0], epilog=EPILOG,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add("--data", default="BasicMotions", help="a name of the UEA archive, a file (.ts, .arff, .npz) or a data "
        "set's folder; default BasicMotions")
    add("--split", default="test", choices=("train", "test", "all"), help="default test, as Table 1")
    add("--data-dir", metavar="DIR", help="where to look for a name before ./data and the cache")
    add("--seeds", type=whole, nargs="+", default=[0, 1, 2], metavar="S", help="default 0 1 2")
    add("--clusters", type=int, metavar="g", help="default: the number of classes")
    add("--method", default="emtc", choices=METHODS, help="default emtc; the others are in related/")
    add("--out", metavar="PATH", help="the run's folder; with --predict, the file for the labels")
    add("--resume", action="store_true", help="go on with the run in that folder, if there is one")
    add("--oracle", action="store_true", help=f"also report the best epoch by ACC ({ORACLE})")
    add("--quiet", action="store_true", help="no progress, only the result")
    add("--list", action="store_true", help="print the paper's Table 1 and end")
    add("--predict", metavar="DATA", help="label this data by the model in --model and end")
    add("--model", metavar="FILE", help="a model_seed<s>.pt, for --predict")
    for name, default in defaults(emtc.EMTC).items():
        many = isinstance(default, tuple)
        kind = (str if many else finite if isinstance(default, float) else int if default is None
                else type(default))
        shown = "none" if default in ((), None) else default
        add(flag(name), dest=name, type=kind, choices=CHOICES.get(name), nargs="+" if many else None,
            metavar=None if name in CHOICES else "X", help=f"{OPTIONS[name]}; default {shown}")
    return p


def method_of(args):
    """The method's class and its settings: the options given, else the class's own defaults."""
    module, name = METHODS[args.method]
    cls = getattr(importlib.import_module(module), name)
    settings = defaults(cls)
    for option in OPTIONS:
        value = getattr(args, option)
        if value is not None and option not in settings:
            raise ValueError(f"{flag(option)} does not apply to --method {args.method}")
        if value is not None:
            settings[option] = value
    if args.oracle and args.method != "emtc":
        raise ValueError("--oracle needs the labels of every epoch, which only --method emtc gives")
    usable_device(settings["device"])
    return cls, settings


def usable_device(name):
    """`name`, if torch can put something there; "auto" always can."""
    try:
        torch.zeros(1, device="cpu" if name == "auto" else name).item()
    except (RuntimeError, AssertionError):
        raise ValueError(f"--device {name} is not to be had here; use auto or cpu") from None
    return name


# ------------------------------------------------------------------ fit and score

def data_of(args):
    """The data set, its number of clusters, and the SHA-256 of its shape, values and labels."""
    data = load(args.data, args.split, args.data_dir)
    if len(data.X) < 2:
        raise ValueError(f"{data.name} has one sample; clustering needs two or more")
    if data.y is None and args.clusters is None:
        raise ValueError(f"{data.name} has no labels to count; give the number of clusters, --clusters g")
    if data.y is None and args.oracle:
        raise ValueError(f"--oracle needs labels; {data.name} has none")
    g = len(data.classes) if args.clusters is None else args.clusters
    if not 1 <= g <= len(data.X):
        raise ValueError(f"{g} clusters of {len(data.X)} samples; give --clusters from 1 to {len(data.X)}")
    digest = hashlib.sha256(str(data.X.shape).encode())
    for array in (data.X,) if data.y is None else (data.X, data.y):
        digest.update(np.ascontiguousarray(array).tobytes())
    return data, g, digest.hexdigest()


def raw_features(X):
    """X (N, T, D), NaN = missing -> (N, T D) float32, z-scored per variate, missing 0."""
    x = torch.as_tensor(X, dtype=torch.float64)
    peak = x.nan_to_num().abs().amax((0, 1))                             # (D,)
    x = x - x.nanmean((0, 1)).nan_to_num()
    scale = x.square().nanmean((0, 1)).sqrt().nan_to_num()
    scale = scale.masked_fill(scale <= 1e-7 * peak, math.inf)  # a constant variate becomes 0
    return (x / scale).nan_to_num().float().flatten(1)                   # (N, T D)


def baselines(cls, settings, data, g, seed):
    """Labels without any training: k-means on the raw values and on the untrained network."""
    off = {"epochs": 0, "mask": "none"}
    off = {**settings, **{name: value for name, value in off.items() if name in settings}}
    return {"raw_kmeans": kmeans(raw_features(data.X), g, seed=seed).labels.numpy(),
            "untrained": cls(g, seed=seed, **off).fit(data.X).labels_}


def better(best, epoch, y, labels):
    """The better by ACC of an earlier epoch's scores `best`, or None, and of these labels."""
    now = {"epoch": epoch, **scores(y, labels)}
    return now if best is None or now["ACC"] > best["ACC"] else best


def fit_seed(run, cls, settings, data, g, seed, state, args):
    """Fit one seed on from `state`; returns the model, its history, oracle epoch, seconds."""
    begun = time.perf_counter() - state["seconds"]

    def on_epoch(model, record):
        state["history"].append(record)
        state["seconds"] = time.perf_counter() - begun
        if args.oracle:
            state["oracle"] = better(state["oracle"], record["epoch"], data.y, model.labels_)
        if model is not None:
            run.save_checkpoint(seed, {**state, "model": model.checkpoint()})
        run.log(seed, record)
        if not args.quiet:
            show(seed, settings["epochs"], record)

    if cls is emtc.EMTC:
        model = cls(g, seed=seed, **settings).fit(data.X, on_epoch=on_epoch, resume=state["model"])
    else:
        model = cls(g, seed=seed, **settings, on_epoch=lambda record: on_epoch(None, record)).fit(data.X)
    if sys.stdout.isatty() and not args.quiet:
        print()  # the next line is no longer progress
    if args.oracle:
        state["oracle"] = better(state["oracle"], len(state["history"]), data.y, model.labels_)
    return model, {**state, "seconds": time.perf_counter() - begun}


def run_seeds(run, cls, settings, data, g, seeds, args):
    """Fit the seeds that are not finished; returns what each one left, as `Run.finished`."""
    done = {seed: found for seed in seeds if (found := run.finished(seed))}
    for seed in (s for s in seeds if s not in done):
        untrained = baselines(cls, settings, data, g, seed)  # refuses what `fit` would refuse
        run.begin()
        state = run.checkpoint(seed)
        histories = {s: done[s]["history"] for s in seeds if s in done}
        run.write_log({**histories, seed: state["history"]})
        model, state = fit_seed(run, cls, settings, data, g, seed, state, args)
        record = {"seed": seed, "epochs": len(state["history"]), "seconds": round(state["seconds"], 3),
                  "clusters": g, "clusters_used": len(np.unique(model.labels_))}
        found = {"record": record, "history": state["history"], "oracle": state["oracle"], "baselines": None}
        if data.y is not None:
            record.update(scores(data.y, model.labels_))
            found["baselines"] = {name: scores(data.y, labels) for name, labels in untrained.items()}
        run.finish(seed, model, found)
        done[seed] = {**found, "labels": model.labels_}
        save_results(run, data, done)
    return done


# ------------------------------------------------------------------ results and report

def stats(rows):
    """[{metric: value}] -> {metric: {"mean", "std"}} over the seeds; None where there are no scores."""
    if not rows or not rows[0]:
        return None
    values = {m: [row[m] for row in rows] for m in METRICS}
    return {m: {"mean": float(np.mean(v)), "std": float(np.std(v))} for m, v in values.items()}


def diagnosis(done):
    """(agreement, label_change, verdict) from the seeds alone; None where there is nothing to say."""
    pairs = itertools.combinations([found["labels"] for found in done.values()], 2)
    agreement = [ari(a, b) for a, b in pairs]
    moved = [r["label_change"] for f in done.values() for r in f["history"][-LAST:] if "label_change" in r]
    agreement, moved = (float(np.mean(v)) if v else None for v in (agreement, moved))
    doubts = []
    if agreement is not None and agreement < MIN_AGREEMENT:
        doubts.append(f"the seeds agree only {agreement:.2f} (mean ARI)")
    if moved is not None and moved > MAX_CHANGE:
        doubts.append(f"{moved:.1%} of the labels still changed at the end")
    if any(f["record"]["clusters_used"] < f["record"]["clusters"] for f in done.values()):
        doubts.append("a cluster stayed empty")
    if doubts:
        return agreement, moved, f"looks unreliable: {'; '.join(doubts)}"
    if agreement is None:
        return agreement, moved, "one seed only: give more --seeds to see how far they agree"
    return agreement, moved, f"looks reliable: the seeds agree {agreement:.2f} (mean ARI)"


def save_results(run, data, done):
    """Write results.json and labels.csv for the finished seeds; returns what is in results.json."""
    found, config = list(done.values()), run.config
    paper = PAPER.get(data.name, (0,))
    # Other data of that name, another split or another g are not the paper's.
    same = (*paper[1:4], "test") == (*data.X.shape[1:], config["n_clusters"], config["split"])
    agreement, moved, verdict = diagnosis(done)
    base = [f["baselines"] or {} for f in found]
    results = {
        **{key: config[key] for key in ("data", "split", "shape", "n_clusters", "method", "seeds")},
        "final": stats([f["record"] for f in found] if data.y is not None else None),
        "per_seed": [f["record"] for f in found],
        "baselines": {name: stats([b.get(name) for b in base]) for name in ("raw_kmeans", "untrained")},
        "paper": {"ACC": {"mean": paper[4], "std": paper[5]},
                  "F1": {"mean": paper[6], "std": paper[7]}} if same else None,
        "agreement": agreement, "label_change": moved, "verdict": verdict,
        "data_hash": config["data_hash"], "threads": torch.get_num_threads(),
        "versions": {"torch": config["torch"], "numpy": config["numpy"]}}
    if config["oracle"]:
        results["oracle"] = {**stats([f["oracle"] for f in found]), "note": ORACLE,
                             "per_seed": [{"seed": s, **f["oracle"]} for s, f in done.items()]}
    write_json(run.folder / "results.json", results)
    names = [""] * len(data.X) if data.y is None else [data.classes[c] for c in data.y]
    write(run.folder / "labels.csv", table_csv(["sample", "class", *(f"seed_{s}" for s in done)],
                                               zip(range(len(names)), names, *(f["labels"] for f in found))))
    return results


def table_csv(header, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def show(seed, epochs, record):
    """One epoch's record in one line: renewed on a terminal, else every tenth."""
    names = {"label_change": "changed"}
    terms = " ".join(f"{names.get(k, k)} {v:.3f}" for k, v in record.items()
                     if k not in ("epoch", "total", "loss", "seconds"))
    width = min(80, shutil.get_terminal_size().columns) - 1
    line = f"seed {seed} {record['epoch']}/{epochs} {terms}"[:width]
    if sys.stdout.isatty():
        print("\r" + line.ljust(width), end="", flush=True)
    elif record["epoch"] == 1 or record["epoch"] % 10 == 0:
        print(line, flush=True)


def print_report(results, folder):
    """The table: each seed, the mean, what needs no training, the paper; then the verdict."""
    def row(label, cells):
        print(f"{label:<26}" + "".join(f"{cell:>13}" for cell in cells).rstrip())

    def spread(label, of):
        if of:
            pairs = [f"{of[m]['mean']:.3f} ± {of[m]['std']:.3f}".replace("0.", ".") if m in of else "-"
                     for m in METRICS]
            row(label, pairs)

    if results["final"]:
        row("last epoch", METRICS)
        for seed in results["per_seed"]:
            row(f"  seed {seed['seed']}", [f"{seed[m]:.3f}".replace("0.", ".") for m in METRICS])
        spread("  mean ± std", results["final"])
        print("without training")
        spread("  k-means on raw values", results["baselines"]["raw_kmeans"])
        spread("  k-means, untrained net", results["baselines"]["untrained"])
        if results["paper"] or "oracle" in results:
            print(f"best epoch, {ORACLE}")
            spread("  the paper's EMTC", results["paper"])
            spread("  here (--oracle)", results.get("oracle"))
    print(results["verdict"])
    print(f"written to {folder}")


# ------------------------------------------------------------------ commands

def train(args):
    cls, settings = method_of(args)
    data, g, digest = data_of(args)
    seeds = list(dict.fromkeys(args.seeds))
    cls(g, **settings)  # refuses bad values before anything is written
    # A file is read as it is: its name says which split it holds, if any does.
    end = re.search("_(TRAIN|TEST)$", Path(args.data).stem)
    split = args.split if Path(args.data).suffix.lower() not in FORMATS else end[1].lower() if end else "own"
    name = re.sub(r"[^\w.-]", "_", data.name)
    folder = args.out or os.path.join("runs", name if args.method == "emtc" else f"{name}-{args.method}")
    config = {"data": data.name, "split": split, "data_hash": digest, "shape": data.X.shape,
              "n_clusters": g, "method": args.method, "seeds": seeds, "oracle": args.oracle, **settings,
              "torch": torch.__version__, "numpy": np.__version__}
    run = Run(folder, config, args.resume)
    N, T, D = data.X.shape
    print(f"{data.name}, {split} split: {N} series, {T} steps, {D} variates; {g} clusters", flush=True)
    try:
        done = run_seeds(run, cls, settings, data, g, seeds, args)
        print_report(save_results(run, data, done), folder)
    except (OSError, FloatingPointError) as error:
        raise ValueError(f"{one_line(error)}; finished seeds and the last good checkpoint stay in "
                         f"{folder}, for --resume") from None


def predict(args):
    """Labels of new data, in the order of its samples, by a saved model: CSV to --out or stdout."""
    other = [flag(name) for name in OPTIONS if name != "device" and getattr(args, name) is not None]
    if other or args.method != "emtc":
        raise ValueError(f"{(other or ['--method'])[0]} does not apply to --predict; the model has its settings")
    if args.out and os.path.exists(args.out):
        raise ValueError(f"{args.out} exists; name a new file")
    if os.path.isfile(args.model) and not intact(args.model):
        raise ValueError(f"{args.model} is not a model file, or a damaged one")
    model = emtc.EMTC.load(args.model, usable_device(args.device or "auto"))
    labels = model.predict(load(args.predict, args.split, args.data_dir).X)
    text = table_csv(["sample", "cluster"], enumerate(labels))
    if args.out:
        write(Path(args.out), text)
    else:
        sys.stdout.write(text)


def list_table1():
    print(f"{'Table 1':<24}{'N':>6}{'T':>7}{'D':>6}{'g':>4}")
    for name, (N, T, D, g, *_) in PAPER.items():
        print(f"{name:<24}{N:>6}{T:>7}{D:>6}{g:>4}")
    print("as printed; the archive's test splits of HandMovementDirection and DuckDuckGeese\n"
          "have 74 and 50 series, which is also what the paper's Table 2 was computed on")


def one_line(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    p = parser()
    args = p.parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "±" is no reason to fail at the end
    if bool(args.predict) != bool(args.model):
        p.error("--predict DATA and --model FILE (a model_seed<s>.pt of a run) go together")
    try:
        list_table1() if args.list else predict(args) if args.predict else train(args)
    except KeyboardInterrupt:
        if args.predict:
            return 130
        again = shlex.join(["python", sys.argv[0], *(a for a in argv if a != "--resume"), "--resume"])
        print(f"\ntrain.py: interrupted; go on with: {again}", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "memory" not in str(error):  # torch's way to say so on a CPU
            raise
        print(f"train.py: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
