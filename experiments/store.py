"""What every experiment shares: options, data, runs of EMTC, one store that resumes.

A script reads like this:

    args = store.arguments("views", __doc__, argv)  # --data --seeds --quick --jobs ...
    box = store.Store(args)                         # results/views.json, resumed
    store.sweep(box, args, VARIANTS, run)           # run(dataset, variant, seed) -> dict
    box.finish(table=tables.summary(box.runs))      # mean and std, saved
    tables.picture(args, draw)                      # figures/views.png

X is (N, T, D) float32, NaN = missing; std is the population's (ddof = 0), 0 for one seed.
"""

import argparse
import ast
import functools
import hashlib
import inspect
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # first, since experiments/related.py would hide the package related
    sys.path.insert(0, str(ROOT))

from tables import METRICS, UserError, read_json  # noqa: E402  (these need the line above)

import uea_loader  # noqa: E402
from emtc import EMTC, z_scored  # noqa: E402
from metrics import scores  # noqa: E402
from support.files import data_hash, write  # noqa: E402

CODE = ("emtc", "kmeans", "metrics")  # the modules that make a run of EMTC
DATA_DIRS = (ROOT / "data", ROOT.parent / "shared" / "data")
PAPER = read_json(ROOT / "support" / "paper.json")  # its tables


# ---------------------------------------------------------------- options


def arguments(name, doc, argv, *, seeds=(0, 1, 2), epochs=None, quick=2, data=None, options=None):
    """Parse the options that all scripts share; `options` adds {"--flag": add_argument keywords}.

    `data` is the default of a full run, as far as found (None: every data set found); --quick takes
    BasicMotions, `quick` epochs, and writes to results/quick. epochs: None for EMTC's own default.
    """
    epochs = defaults()["epochs"] if epochs is None else epochs
    about = {"prog": f"experiments/{name}.py", "description": doc.strip().split("\n\n")[0]}
    parser = argparse.ArgumentParser(**about)
    add = parser.add_argument
    add("--data", nargs="+", metavar="NAME", help="data sets; NAME:train is the train split "
        f"(default: {' '.join(data or ['all'])}, with --quick BasicMotions)")  # fmt: skip
    add("--seeds", nargs="+", type=int, metavar="N", help=f"default: {' '.join(map(str, seeds))}")
    add("--epochs", type=int, metavar="N", help=f"default: {epochs}, with --quick {quick}")
    add("--quick", action="store_true", help="a first look, kept apart in results/quick")
    add("--fresh", action="store_true", help="start over; the old file is kept as <name>.json.old")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time, one thread each")
    add("--out", type=Path, metavar="DIR", help="for JSON and picture (default: results, figures)")
    for flag, keywords in (options or {}).items():
        add(flag, **keywords)
    args = parser.parse_args(argv)
    args.name, here, sub = name, found(), "quick" if args.quick else ""
    full = [n for n in data or () if n.partition(":")[0] in here] or here
    args.data = list(dict.fromkeys(args.data or (["BasicMotions"] if args.quick else full)))
    args.seeds = list(dict.fromkeys(args.seeds or ([0] if args.quick else seeds)))
    args.epochs = (quick if args.quick else epochs) if args.epochs is None else args.epochs
    if args.epochs < 0 or args.jobs < 1:
        parser.error(f"--epochs {args.epochs} --jobs {args.jobs}: give at least 0 and 1")
    if not args.data:
        parser.error(f"no data set in {', '.join(map(str, DATA_DIRS))}: give --data")
    args.figures = args.out or ROOT / "figures" / sub
    args.out = args.out or ROOT / "results" / sub
    torch.set_num_threads(1)  # results do not depend on it, times do
    return args


def defaults():
    """{option: default} of EMTC, without seed and device."""
    options = inspect.signature(EMTC).parameters.values()
    return {p.name: plain(p.default) for p in options
            if p.default is not p.empty and p.name not in ("seed", "device")}  # fmt: skip


def run_main(main):
    """Exit status of `main()`: 2 and one line on stderr for a user's mistake, 130 for Ctrl-C."""
    try:
        return main() or 0
    except (UserError, uea_loader.DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it stopped", file=sys.stderr)
        return 130


# ---------------------------------------------------------------- data


def found():
    """Names of the data sets that lie in DATA_DIRS with a test split, the smallest first."""
    files = [f for folder in DATA_DIRS for f in folder.glob("*/*_TEST.*")]
    size = {f.parent.name: f.stat().st_size for f in files
            if f.suffix in (".ts", ".arff") and f.stem == f"{f.parent.name}_TEST"}  # fmt: skip
    return sorted(size, key=lambda name: (size[name], name))


def load(name, args, split="test"):
    """`uea_loader.load` from the first of DATA_DIRS that has it, else from its own places.

    "NATOPS:train" is the train split, and its name is "NATOPS train".
    """
    name, _, own = name.partition(":")
    home = next((d for d in DATA_DIRS if (d / name).is_dir()), None)
    dataset = uea_loader.load(name, split=own or split, data_dir=home)
    return dataset._replace(name=f"{dataset.name} {own}") if own else dataset


def content_hash(dataset):
    """16 hex digits that tell two versions of a data set apart."""
    return data_hash(dataset.X, dataset.y)[:16]


# ---------------------------------------------------------------- runs of EMTC


def run(args, dataset, seed, **options):
    """The record of EMTC with `options` (epochs: args.epochs), trained unless a study holds it.

    Each JSON of args.out that has a record of the same data, options, seed and code is taken from,
    so that the default setting is trained once and not once a study.
    """
    options = {"epochs": args.epochs, **options}
    key = {**defaults(), **options, "seed": seed, "data": content_hash(dataset),
           "code": code_hash(*CODE), "torch": torch.__version__}  # fmt: skip
    key = hashlib.sha256(json.dumps(plain(key), sort_keys=True).encode()).hexdigest()[:16]
    for path in sorted(args.out.glob("*.json")):
        for record in read_json(path).get("runs", []):
            if record.get("run") == key:
                return {k: v for k, v in record.items() if k not in RECORD}
    return {**fitted(dataset, seed, **options)[1], "run": key}


def fitted(dataset, seed, **options):
    """Fit EMTC, which sees no labels, and score it: (model, record).

    ACC, F1, NMI, ARI  of the last epoch, the only one that a user without labels can have
    oracle             {"epoch", ACC, ...} of the epoch with the best ACC: picked by the labels
    epochs, kept       epochs run; share of the observed entries that the last mask keeps
    label_change       share of labels that changed an epoch, mean over the last five
    labels             (N,) ints; train_seconds, parameters
    curves             {what history_ has, ACC, ...}: one value an epoch, four digits
    """
    if dataset.y is None:
        raise UserError(f"{dataset.name} has no labels: there is nothing to score")
    start, rows = time.perf_counter(), []

    def on_epoch(model, record):
        rows.append({**record, **scores(dataset.y, model.labels_)})

    try:
        model = EMTC(len(dataset.classes), seed=seed, **options).fit(dataset.X, on_epoch=on_epoch)
    except (ValueError, FloatingPointError) as error:
        raise UserError(f"{dataset.name}, seed {seed}: {error}") from error
    seconds, last = time.perf_counter() - start, scores(dataset.y, model.labels_)
    best = max([{"epoch": len(rows), **last}, *rows], key=lambda row: row["ACC"])
    observed, names = z_scored(dataset.X)[1].numpy(), list(rows[0])[1:] if rows else []
    return model, {
        **last, "oracle": {m: best[m] for m in ("epoch", *METRICS)}, "epochs": len(rows),
        "kept": float(model.mask_[observed].mean()),
        "label_change": float(np.mean([r["label_change"] for r in rows[-5:]])) if rows else None,
        "parameters": sum(p.numel() for p in model.net_.parameters()), "train_seconds": seconds,
        "labels": model.labels_,
        "curves": {n: [float(f"{r[n]:.4g}") for r in rows] for n in names},
    }  # fmt: skip


# ---------------------------------------------------------------- results

RECORD = ("data", "variant", "seed", "seconds", "data_hash", "code")  # what Store adds to a record


def plain(value):
    """Arrays, tensors, numpy scalars as JSON values; floats to 6 digits; NaN, infinity as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write_json(path, content):
    """Write `content` (dict) whole or not at all: a line an entry, and one a record of "runs"."""
    dump, entries = functools.partial(json.dumps, allow_nan=False), []
    for key, value in plain(content).items():
        text = "[\n  " + ",\n  ".join(map(dump, value)) + "\n ]" if key == "runs" else dump(value)
        entries.append(f" {dump(key)}: {text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, "{\n" + ",\n".join(entries) + "\n}\n", lasting=False)


@functools.cache
def code_hash(*names):
    """Which code made a result: hash, at the first call, of what these modules do.

    Comments, docstrings and layout do not count: it is a hash of the syntax tree without them.
    """

    def bare(node):
        if isinstance(node, ast.AST):
            fields = [(k, bare(v)) for k, v in ast.iter_fields(node) if k != "kind"]
            return type(node).__name__, [(k, v) for k, v in fields if v not in (None, [])]
        if isinstance(node, list):
            return [bare(n) for n in node if not docstring(n)]
        return node

    def docstring(n):  # a constant as an expression of its own
        return isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)

    files = [ROOT / f"{name}.py" for name in names]
    trees = [bare(ast.parse(f.read_text(encoding="utf-8"))) for f in files if f.exists()]
    return hashlib.sha256(repr(trees).encode()).hexdigest()[:16]


class Store:
    """results/<name>.json: one record a (data, variant, seed), saved after each, so that a stopped
    run goes on.

    `settings` (whatever shapes a record; by default the options of EMTC) and the versions of torch
    and numpy are kept in "made_with"; a file made with others is refused, never mixed. A record
    made by other code, or from other values of the same data set, is made anew.
    """

    def __init__(self, args, code=CODE, **settings):
        self.path, self.name, self.runs = args.out / f"{args.name}.json", args.name, []
        self.modules, self.code = list(code), code_hash(*code)
        settings = settings or {**defaults(), "epochs": args.epochs}
        versions = {"torch": torch.__version__.split("+")[0], "numpy": np.__version__}
        self.made_with = now = plain({**settings, **versions})
        if self.path.exists() and args.fresh:
            os.replace(self.path, self.path.with_name(self.path.name + ".old"))
        old = read_json(self.path)
        then = old.get("made_with", now)
        changed = [f"{key} {then.get(key)} (now {now.get(key)})"
                   for key in sorted({*then, *now}) if then.get(key) != now.get(key)]  # fmt: skip
        if changed and not args.quick:  # a first look is worth no question, and starts over
            raise UserError(f"{self.path} was made with {', '.join(changed)}: "
                            "use those, another --out, or --fresh to start over")  # fmt: skip
        self.runs = [] if changed else old.get("runs", [])

    def get(self, data, variant, seed, data_hash):
        """The record stored under this key by this code from these values, or None."""
        key = [data, variant, seed, data_hash, self.code]
        names = ("data", "variant", "seed", "data_hash", "code")
        return next((run for run in self.runs if [run[n] for n in names] == key), None)

    def add(self, data, variant, seed, data_hash, seconds, **values):
        """Add one record, in place of an outdated one, and save the file."""
        made = {"seconds": round(seconds, 3), "data_hash": data_hash, "code": self.code}
        new = plain({"data": data, "variant": variant, "seed": seed, **values, **made})
        key = [new[k] for k in ("data", "variant", "seed")]
        self.runs = [r for r in self.runs if [r["data"], r["variant"], r["seed"]] != key] + [new]
        self.finish()

    def finish(self, **extra):
        """Save everything, with `extra` (the table, conclusions in numbers) before the records."""
        head = {"experiment": self.name, "modules": self.modules, "made_with": self.made_with,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores"}  # fmt: skip
        write_json(self.path, {**head, **extra, "runs": self.runs})


def sweep(store, args, variants, run, load=None):
    """Fill the store: run(dataset, variant, seed) -> dict for all that it lacks.

    load(name, args): a data set, `load` above by default. Prints a line as each run ends, with the
    values named in METRICS; args.jobs processes at a time. At the end the records lie in the order
    of the data sets, variants and seeds.
    """
    sets = [(load or globals()["load"])(name, args) for name in args.data]
    work = [(d, content_hash(d), v, s) for d in sets for v in variants for s in args.seeds]
    todo = [w for w in work if store.get(w[0].name, w[2], w[3], w[1]) is None]
    if len(todo) < len(work):
        print(f"{store.name}: {len(work) - len(todo)} of {len(work)} runs stored", flush=True)
    for done, (k, values, seconds) in enumerate(_each(todo, run, args.jobs), 1):
        dataset, stamp, variant, seed = todo[k]
        store.add(dataset.name, variant, seed, stamp, seconds, **values)
        shown = " ".join(f"{m} {values[m]:.3f}" for m in METRICS if values.get(m) is not None)
        print(f"[{done:3d}/{len(todo)}] {dataset.name:<20.20} {variant!s:<18.18} seed {seed} "
              f"{shown} {seconds:.1f} s", flush=True)  # fmt: skip
    place = {key: k for k, key in enumerate([*(d.name for d in sets), *variants])}
    key = lambda run: [place.get(run[k], len(place)) for k in ("data", "variant")]
    store.runs.sort(key=lambda run: (key(run), run["seed"]))


def _each(todo, run, jobs):
    """(index, values, seconds) of run(dataset, variant, seed) for each of `todo`, as they end."""
    global _one  # the forked processes find it there; a closure cannot be sent to them

    def _one(k):
        dataset, _, variant, seed = todo[k]
        start = time.perf_counter()
        values = plain(run(dataset, variant, seed))
        return k, values, time.perf_counter() - start

    if min(jobs, len(todo)) < 2:
        yield from map(_one, range(len(todo)))
        return
    with multiprocessing.get_context("fork").Pool(min(jobs, len(todo))) as pool:
        yield from pool.imap_unordered(_call, range(len(todo)))


def _call(k):
    return _one(k)
