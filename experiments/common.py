"""What every experiment shares: options, data, a store that resumes, a table, a picture.

A script reads like this:

    args = common.arguments("tau", __doc__, argv)             # --data --seeds --quick ...
    store = common.Store(args, epochs=args.epochs)            # results/tau.json, resumed
    common.sweep(store, args, VARIANTS, run)                  # run(dataset, variant, seed) -> dict
    store.finish(table=common.summary(store.runs))            # mean and std, saved
    common.print_table(...); common.picture(args, draw)       # figures/tau.png

Conventions: X is (N, T, D) float32, NaN = missing; std is the population's (ddof = 0), 0 for one seed.
"""

import argparse
import contextlib
import functools
import hashlib
import inspect
import json
import math
import os
import platform
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # first, since experiments/related.py would hide the package related
    sys.path.insert(0, str(ROOT))

import uea_loader  # noqa: E402  (needs the line above)

METRICS = ("ACC", "F1", "NMI", "ARI")
DATA_DIRS = (ROOT / "data", ROOT.parent / "shared" / "data")
CHEAP_FIRST = ("BasicMotions", "RacketSports", "NATOPS", "FingerMovements", "JapaneseVowels",
               "ArticularyWordRecognition", "StandWalkJump", "SelfRegulationSCP1")
STUDY = CHEAP_FIRST[:6]  # without the long series, for what trains many times
# Okabe and Ito's palette, told apart by colour-blind readers; the order is the order of use.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


class UserError(ValueError):
    """A mistake of the caller: its message is printed as one line, without a traceback."""


# ---------------------------------------------------------------- options

def arguments(name, doc, argv=None, *, seeds=(0, 1, 2), quick_seeds=(0,), epochs=None, quick_epochs=10,
              data=None, options=None):
    """Parse the options that all scripts share; `options` adds {"--flag": add_argument keywords}.

    Returns a namespace with name, data (list[str]), seeds (list[int]), epochs (int), quick, fresh,
    data_dir (list[Path]), out and figures (Path). `data` is the default of a full run, as far as found (None:
    every data set found); --quick takes BasicMotions and writes to results/quick, so that it replaces no full
    result. epochs: None for EMTC's own default.
    """
    text, epochs = (doc or name).strip(), default_epochs() if epochs is None else epochs
    parser = argparse.ArgumentParser(prog=f"experiments/{name}.py", description=text.split("\n\n")[0])
    add = parser.add_argument
    add("--data", nargs="+", metavar="NAME", help="data sets (default: BasicMotions with --quick, else "
        + ("every one found in --data-dir)" if data is None else f"of {' '.join(data)}, what is found; long series "
        "only if named)"))
    add("--seeds", nargs="+", type=int, metavar="N", help=f"default: {' '.join(map(str, seeds))}")
    add("--epochs", type=int, metavar="N", help=f"default: {epochs}, with --quick {quick_epochs}")
    add("--quick", action="store_true", help="a first look in under a minute, kept apart in results/quick")
    add("--fresh", action="store_true", help="start over; the old file is kept as <name>.json.old")
    add("--data-dir", nargs="+", type=Path, metavar="DIR", default=list(DATA_DIRS),
        help="folders with <Name>/<Name>_TEST.arff or .ts (default: data ../shared/data)")
    add("--out", type=Path, metavar="DIR", help="folder of the JSON (default: results)")
    add("--figures", type=Path, metavar="DIR", help="folder of the picture (default: figures)")
    for flag, keywords in (options or {}).items():
        add(flag, **keywords)
    args = parser.parse_args(argv)
    args.name = name
    here = found(args.data_dir)
    full = [n for n in data or () if n in here] or sorted(here, key=cost)
    args.data = list(dict.fromkeys(args.data or (["BasicMotions"] if args.quick else full)))
    args.seeds = list(dict.fromkeys(args.seeds or (quick_seeds if args.quick else seeds)))
    args.epochs = (quick_epochs if args.quick else epochs) if args.epochs is None else args.epochs
    if args.epochs < 0:
        parser.error(f"--epochs {args.epochs}: give 0 or more")
    if not args.data:
        parser.error(f"no data set in {', '.join(map(str, args.data_dir))}: give --data or --data-dir")
    sub = "quick" if args.quick else ""
    args.out, args.figures = args.out or ROOT / "results" / sub, args.figures or ROOT / "figures" / sub
    return args


def default_epochs():
    """EMTC's own cap on the epochs."""
    from emtc import EMTC
    return inspect.signature(EMTC).parameters["epochs"].default


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

def found(data_dirs=DATA_DIRS):
    """Names of the data sets that lie in `data_dirs` with a test split, sorted."""
    names = set()
    for folder in data_dirs:
        for file in Path(folder).glob("*/*_TEST.*"):
            name = file.parent.name
            if file.name[:-len(file.suffix)] == f"{name}_TEST" and file.suffix in (".arff", ".ts"):
                names.add(name)
    return sorted(names)


def cost(name):
    """Sort key: the data sets known to be cheap first, those not known last, by name."""
    return CHEAP_FIRST.index(name) if name in CHEAP_FIRST else len(CHEAP_FIRST), name


def load(name, args, split="test"):
    """`uea_loader.load` from the first of args.data_dir that has the data set, else from its own places."""
    home = next((d for d in args.data_dir if name in found([d])), None)
    return uea_loader.load(name, split=split, data_dir=home)


def content_hash(dataset):
    """First 16 hex digits of the SHA-256 of shape, values and labels: tells two versions of a data set apart."""
    digest = hashlib.sha256(str(dataset.X.shape).encode())
    digest.update(np.ascontiguousarray(dataset.X).tobytes())
    if dataset.y is not None:
        digest.update(np.ascontiguousarray(dataset.y, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def luck_floor(y, draws=201, tries=12, seed=0, sizes=False):
    """(mean, std) over `tries` of the best ACC among `draws` random labelings of y (N,) int.

    Uniformly random, or with `sizes` of the true class sizes, y itself shuffled. What picking the best of 201
    epochs by their true labels gives to a method that knows nothing.
    """
    from metrics import accuracy
    rng, y = np.random.default_rng(seed), np.asarray(y)
    n_classes = int(y.max()) + 1
    draw = (lambda: rng.permutation(y)) if sizes else (lambda: rng.integers(n_classes, size=len(y)))
    best = [max(accuracy(y, draw()) for _ in range(draws)) for _ in range(tries)]
    return float(np.mean(best)), float(np.std(best))


# ---------------------------------------------------------------- results

def plain(value):
    """Arrays, tensors and numpy scalars as JSON values; floats to 6 digits; NaN and infinity as null."""
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
    """Write `content` (dict) whole or not at all; entries of its dicts and of "runs" take one line each."""
    items = []
    for key, value in plain(content).items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, dict) and value:
            lines = [f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items()]
            text = "{\n" + ",\n".join(lines) + "\n }"
        elif key == "runs" and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(run, allow_nan=False)}" for run in value) + "\n ]"
        items.append(f" {json.dumps(key)}: {text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text("{\n" + ",\n".join(items) + "\n}\n", encoding="utf-8")
    os.replace(part, path)


@functools.cache
def code_hash(*names):
    """Hash, at the first call, of the modules' lines without blank and comment-only ones: which code made a result."""
    digest = hashlib.sha256()
    for name in names:
        file = ROOT / f"{name}.py"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        digest.update("\n".join(s.rstrip() for s in lines if s.strip() and not s.lstrip().startswith("#")).encode())
    return digest.hexdigest()[:16]


class Store:
    """results/<name>.json: one record a (data, variant, seed), saved after each, so that a stopped run goes on.

    `settings` (epochs and whatever else shapes a record) and the versions of torch and numpy are kept in
    "made_with"; a file made with others is refused, never mixed. Records made by other code are named.
    """

    def __init__(self, args, code=("emtc", "kmeans", "metrics"), **settings):
        self.path, self.name, self.runs, self.code = args.out / f"{args.name}.json", args.name, [], code_hash(*code)
        self.made_with = plain({**settings, "torch": torch.__version__.split("+")[0], "numpy": np.__version__})
        if self.path.exists() and args.fresh:
            os.replace(self.path, self.path.with_name(self.path.name + ".old"))
        if self.path.exists():
            self._resume(getattr(args, "quick", False))

    def _resume(self, quick):
        try:
            old = json.loads(self.path.read_text(encoding="utf-8"))
            then, runs = dict(old["made_with"]), list(old["runs"])
            if not all({"data", "variant", "seed", "data_hash"} <= run.keys() for run in runs):
                raise ValueError("a record without its key")
        except (ValueError, KeyError, TypeError, AttributeError):
            broken = self.path.with_name(self.path.name + ".broken")
            os.replace(self.path, broken)
            print(f"note: {self.path} was not readable; kept as {broken.name}, starting over", file=sys.stderr)
            return
        changed = [f"{key} {then.get(key)} (now {self.made_with.get(key)})"
                   for key in sorted({*then, *self.made_with}) if then.get(key) != self.made_with.get(key)]
        if changed and quick:  # a first look is worth no question
            print(f"note: {self.path} was made with {', '.join(changed)}; starting over", file=sys.stderr)
            return
        if changed:
            raise UserError(f"{self.path} was made with {', '.join(changed)}: "
                            "use those, another --out, or --fresh to start over")
        self.runs = runs
        stale = sum(run.get("code") != self.code for run in runs)
        if stale:
            print(f"note: {stale} of {len(runs)} records were made by other code; --fresh makes them anew",
                  file=sys.stderr)

    def get(self, data, variant, seed, data_hash):
        """The record stored under this key, or None; refuses one made from other values of the same data set."""
        for run in self.runs:
            if (run["data"], run["variant"], run["seed"]) == (data, variant, seed):
                if run["data_hash"] != data_hash:
                    raise UserError(f"{self.path} holds {data} with content {run['data_hash']}, the data found "
                                    f"is {data_hash}: use another --out, or --fresh to start over")
                return run
        return None

    def add(self, data, variant, seed, data_hash, seconds, **values):
        """Append one record and save the file."""
        self.runs.append(plain({"data": data, "variant": variant, "seed": seed, **values,
                                "seconds": round(seconds, 3), "data_hash": data_hash, "code": self.code}))
        self.finish()

    def finish(self, **extra):
        """Save everything, with `extra` (the table, conclusions in numbers) before the records."""
        write_json(self.path, {"experiment": self.name, "made_with": self.made_with,
                               "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
                                          f"{torch.get_num_threads()} torch threads", **extra, "runs": self.runs})


@contextlib.contextmanager
def timer():
    """`with timer() as seconds: ...`, then seconds() is what the block took."""
    start, end = time.perf_counter(), []
    yield lambda: (end[0] if end else time.perf_counter()) - start
    end.append(time.perf_counter())


def sweep(store, args, variants, run, split="test", load=load):
    """Fill the store: run(dataset, variant, seed) -> dict for each data set, variant and seed it lacks.

    Prints a line as each one ends. Values named in METRICS appear on it.
    """
    total = len(args.data) * len(variants) * len(args.seeds)
    done = 0
    for name in args.data:
        dataset = load(name, args, split)
        stamp = content_hash(dataset)
        for variant in variants:
            for seed in args.seeds:
                done += 1
                record, how = store.get(dataset.name, variant, seed, stamp), "stored"
                if record is None:
                    with timer() as seconds:
                        values = run(dataset, variant, seed)
                    store.add(dataset.name, variant, seed, stamp, seconds(), **values)
                    record, how = store.runs[-1], f"{store.runs[-1]['seconds']:.1f} s"
                shown = " ".join(f"{m} {record[m]:.3f}" for m in METRICS if isinstance(record.get(m), float))
                print(f"[{done:3d}/{total}] {dataset.name:<20.20} {variant!s:<14.14} seed {seed} {shown} {how}",
                      flush=True)


def summary(runs, metrics=METRICS):
    """{data: {variant: {metric: {"mean", "std", "n"}}}} over the seeds of `runs`, in their order."""
    values = {}
    for run in runs:
        cell = values.setdefault(run["data"], {}).setdefault(str(run["variant"]), {})
        for metric in metrics:
            if run.get(metric) is not None:
                cell.setdefault(metric, []).append(run[metric])
    return {data: {variant: {metric: {"mean": float(np.mean(v)), "std": float(np.std(v)), "n": len(v)}
                             for metric, v in cell.items()} for variant, cell in row.items()}
            for data, row in values.items()}


# ---------------------------------------------------------------- table and picture

def markdown(headers, rows):
    """A table as aligned Markdown: readable in a terminal, pasted into a README as it is."""
    cells = [[str(c) for c in row] for row in [headers, *rows]]
    width = [max(3, *(len(row[j]) for row in cells)) for j in range(len(headers))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]])


def print_table(headers, rows, title=""):
    """Print `title` and the table, a blank line before each."""
    print("\n" + (title + "\n\n" if title else "") + markdown(headers, rows))


def cell(entry, std=True):
    """".953 ± .012" of {"mean", "std"}; ".953" without std; a dash where there is none."""
    if not entry:
        return "-"
    text = f"{entry['mean']:.3f}" + (f" ± {entry['std']:.3f}" if std and "std" in entry else "")
    return re.sub(r"\b0\.", ".", text)


def picture(args, draw, width=9.0, height=5.0, **subplots):
    """Call draw(figure, axes) and save figures/<name>.png; without matplotlib, say how to get it.

    9 inches are shown about 830 px wide on a README page, so 10 pt text there is 13 px high.
    """
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install -r experiments/requirements.txt")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    style = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False,
             "axes.prop_cycle": matplotlib.cycler(color=COLOURS), "axes.grid": True, "grid.color": "#dddddd",
             "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9, "figure.dpi": 150}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **subplots)
        draw(figure, axes)
        args.figures.mkdir(parents=True, exist_ok=True)
        path = args.figures / f"{args.name}.png"
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
    print(f"picture: {path}")
    return path
