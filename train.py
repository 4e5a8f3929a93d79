"""Cluster a data set: load, fit seed by seed, score the last epoch, report, save.

    python train.py --data BasicMotions

The labels of a data set never reach the training: they only score what came out of it. How a
run's folder outlives kills and full disks is in support/run_folder.py; `--help` tells the rest.
"""

import argparse
import importlib
import inspect
import os
import re
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

import emtc
from kmeans import kmeans
from metrics import scores
from support import page, report
from support.files import data_hash, intact, write
from support.jobs import side_by_side
from support.progress import Progress, one_line, open_streams, say, silence
from support.run_folder import Follower, Run, lock, set_aside, shared
from uea_loader import FORMATS, load

METHODS = {
    "emtc": ("emtc", "EMTC"),
    "simmtm": ("related.simmtm", "SimMTM"),
    "nc-vqvae": ("related.nc_vqvae", "NCVQVAE"),
    "mug": ("related.mug", "MUG"),
}

HELP = {  # flag or parameter -> what --help says; a parameter's type and default are the method's
    "data": f"an archive's name, a file ({' '.join(FORMATS)}) or a folder; default BasicMotions",
    "split": "default test, as Table 1",
    "data_dir": "where to look for a name before ./data and the cache",
    "id_column": "the column of a .csv that says to which series a row belongs",
    "time_column": "the one that orders the rows of a series, if there is one",
    "class_column": "the one that holds the class, if there is one",
    "seeds": "default 0 1 2",
    "clusters": "default the number of classes; several: a run each, and a table to choose by",
    "method": "default emtc; the others are in related/",
    "out": "the run's folder; with --predict, the file for the labels",
    "resume": "go on with the run in that folder, if there is one; further --seeds may join it",
    "jobs": "fit so many seeds at once, each in a process of its own; default 1",
    "oracle": f"also report the best epoch by ACC ({report.ORACLE})",
    "quiet": "no progress, only the result",
    "list": "print the paper's Table 1 and end",
    "predict": "label this data by the model in --model and end",
    "model": "a model_seed<s>.pt, for --predict",
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
    "keep": "share that the random first mask keeps",
    "hide": "the most that is hidden in the training versions of a series",
    "drop": "parts of EMTC to leave out",
    "patience": "ends after so many epochs with at most 1 %% of labels changed, and --hide reached",
    "max_keys": "timestamps that each one attends to, Eq. (2); fewer for very long series",
    "n_starts": "networks tried, of which the best by Eq. (10) is trained",
    "trial": "epochs for which each of them is tried",
    "n_init": "starts of k-means",
    "mask_lr": "factor on lr for the importance network",
    "encoder": "what f^(v) is, Eq. (4)",
    "pooling": "over time, Eq. (8)",
    "fusion": "of the views, Eq. (8)",
    "as_printed": "the plainest reading of the paper",
    "device": "auto, cpu, cuda, cuda:1, ...",
}
EPILOG = f"""
The run's folder (--out, or runs/<data>; runs/<data>-<method> for the related methods) gets
report.html, a page to look at; labels.csv, results.json, config.json, log.jsonl; of each seed
seed_<s>.npz (embedding, labels; of EMTC also importance and mask) and, of EMTC, model_seed<s>.pt.
Several --clusters give runs/<data>-clusters/g2, g3, ..., and a table that compares them.
A new run into the folder of an older one renames it to <folder>.1, .2, ...: nothing is
overwritten. --resume goes on after the last whole epoch (a related method: after the last whole
seed); on a CPU to the bits of a run that never stopped, with the same number of threads.
`torchrun --standalone --nproc-per-node 2 train.py ...` shares every batch among two processes.
A run looks unreliable when its seeds agree by less than {report.MIN_AGREEMENT} (mean ARI between
their labelings), when more than {report.MAX_CHANGE:.0%} of the labels still changed in the last
{report.LAST} epochs, or when a cluster stayed empty. Standard deviations are the population's.
Exit status: 0, 2 for bad input, 130 for Ctrl-C.
"""


def defaults(cls):
    """{option: default} of cls, if EMTC has it too; g and the seed have flags of their own."""
    given = inspect.signature(cls).parameters.items()
    ours = set(inspect.signature(emtc.EMTC).parameters) - {"n_clusters", "seed"}
    return {name: parameter.default for name, parameter in given if name in ours}


def flag(name):
    return "--" + name.removeprefix("n_").replace("_", "-")


def parser():
    p = argparse.ArgumentParser("train.py", description=__doc__.split("\n")[0], epilog=EPILOG)
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.error = lambda told: p.exit(2, f"{p.prog}: error: {told}\n")  # one line, without the usage

    def add(name, shown="", **more):
        p.add_argument(flag(name), dest=name, help=HELP.get(name, name) + shown, **more)

    add("data", metavar="DATA")
    add("split", default="test", choices=("train", "test", "all"))
    add("data_dir", metavar="DIR")
    for name in ("id", "time", "class"):
        add(f"{name}_column", f"; default {name}", default=name, metavar="NAME")
    add("seeds", type=int, nargs="+", metavar="S")
    add("clusters", type=int, nargs="+", metavar="g")
    add("method", default="emtc", choices=METHODS)
    add("out", metavar="PATH")
    add("jobs", type=int, default=1, metavar="N")
    for name in ("resume", "oracle", "quiet", "list"):
        add(name, action="store_true")
    add("predict", metavar="DATA")
    add("model", metavar="FILE")
    for name, default in defaults(emtc.EMTC).items():  # None: not given, so the method's own
        shown = f"; default {'none' if default in ((), None) else default}"
        if isinstance(default, bool):
            add(name, shown, action=argparse.BooleanOptionalAction)
            continue
        kind = str if isinstance(default, tuple) else type(default)
        more = {"nargs": "+"} if isinstance(default, tuple) else {}
        more |= {"choices": emtc.CHOICES[name]} if name in emtc.CHOICES else {"metavar": "X"}
        add(name, shown, type=kind, **more)
    return p


def method_of(args):
    """The method's class and its settings: the options given, else the class's own defaults."""
    module, name = METHODS[args.method]
    cls = getattr(importlib.import_module(module), name)
    settings, ours = defaults(cls), defaults(emtc.EMTC)
    given = {option: getattr(args, option) for option in ours if getattr(args, option) is not None}
    if foreign := [option for option in given if option not in settings]:
        raise ValueError(f"{flag(foreign[0])} does not apply to --method {args.method}")
    if args.method != "emtc" and args.oracle:
        raise ValueError("--oracle needs the labels of every epoch, which only --method emtc gives")
    return cls, settings | given


class Job(NamedTuple):
    """What is fitted: a method with its settings, on data, for g clusters."""

    cls: type
    settings: dict
    data: NamedTuple
    g: int
    args: argparse.Namespace


def read(args, what):
    columns = {name: getattr(args, name) for name in ("id_column", "time_column", "class_column")}
    return load(what, args.split, args.data_dir, **columns)


def clusters_for(data, args):
    """The list of g; ValueError where this data set cannot be clustered as asked."""
    N = len(data.X)
    if N < 2:
        raise ValueError(f"{data.name} has one sample; clustering needs two or more")
    if data.y is None and (args.oracle or args.clusters is None):
        told = "--oracle needs some" if args.oracle else "say how many clusters: --clusters g"
        raise ValueError(f"{data.name} has no labels; {told}")
    clusters = list(dict.fromkeys(args.clusters or [len(data.classes)]))
    if bare := np.flatnonzero(np.isnan(data.X).all((1, 2))).tolist():
        raise ValueError(f"{data.name}: series {bare[0]}, counted from 0, has no value")
    if not 1 <= min(clusters) <= max(clusters) <= N:
        raise ValueError(f"clusters {clusters} of {N} samples; give --clusters from 1 to {N}")
    return clusters


def baselines(job, seed):
    """Scores without any training: k-means on the raw values and on the untrained network."""
    data, off = job.data, {"epochs": 0, "mask": "none"}
    if data.y is None:
        return None
    off = job.settings | {name: value for name, value in off.items() if name in job.settings}
    untrained = job.cls(job.g, seed=seed, **off).fit(data.X)
    raw = kmeans(emtc.z_scored(data.X)[0].flatten(1), job.g, seed=seed)
    found = {"raw_kmeans": raw.labels, "untrained": untrained.labels_}
    return {name: scores(data.y, labels) for name, labels in found.items()}


def better(state, y, labels):
    """The best epoch by ACC so far: that in `state`, or the last one, whose labels these are."""
    now, best = {"epoch": len(state["history"]), **scores(y, labels)}, state["oracle"]
    return now if best is None or now["ACC"] > best["ACC"] else best


def fit_seed(run, job, seed, seeds_after=0):
    """Fit one seed, on from its checkpoint if there is one, and store it."""
    cls, settings, data, g, args = job
    used = settings | (emtc.AS_PRINTED if settings.get("as_printed") else {})
    with Progress(seed, used, seeds_after, data.X.shape, args.quiet) as progress:
        untrained = baselines(job, seed)
        state, look = shared(run.checkpoint(seed)), page.Look(data.X)
        begun = time.perf_counter() - state["seconds"]
        progress.start()

        def on_epoch(model, record):
            progress.show(record)
            state["history"].append(record)
            state["seconds"] = time.perf_counter() - begun
            if model is not None:
                state["trace"] = look.add(state["trace"], record["epoch"], model.mask_)
                if args.oracle:
                    state["oracle"] = better(state, data.y, model.labels_)
                run.save_checkpoint(seed, {**state, "model": model.checkpoint()})
            run.log(seed, record)

        def on_trial(model, record):
            progress.show(record)
            state["seconds"] = time.perf_counter() - begun
            run.save_checkpoint(seed, {**state, "model": model.checkpoint()})

        if cls is emtc.EMTC:
            model = cls(g, seed=seed, **settings)
            model.fit(data.X, on_epoch=on_epoch, on_trial=on_trial, resume=state["model"])
        else:  # of a related method only whole seeds are kept
            model = cls(g, seed=seed, on_epoch=lambda record: on_epoch(None, record), **settings)
            model.fit(data.X)
    epochs, labels = len(state["history"]), model.labels_
    record = {"seed": seed, "epochs": epochs, "seconds": round(time.perf_counter() - begun, 3)}
    record |= {"clusters": g, "clusters_used": len(np.unique(labels))}
    if data.y is not None:
        record |= scores(data.y, labels)  # of the last epoch, whatever the oracle says
    if args.oracle:
        state["oracle"] = better(state, data.y, labels)
    found = {"record": record, "history": state["history"], "oracle": state["oracle"]}
    shown = look.arrays(state["trace"], labels, getattr(model, "mask_", None))
    run.finish(seed, model, found | {"baselines": untrained}, **shown)


def fit_seeds(run, job, seeds):
    """Fit the seeds that are not finished; returns {seed: what `Run.finished` gives}."""
    done = shared({seed: found for seed in seeds if (found := run.finished(seed))})
    todo = [seed for seed in seeds if seed not in done]
    if todo:
        run.begin()
        run.write_log({seed: run.checkpoint(seed) for seed in todo} | done)

    def ended(seed):
        done[seed] = run.finished(seed)
        if first():
            report.save_results(run, job.data, done)

    if job.args.jobs > 1:
        side_by_side(fit_seed, [(run, job, seed) for seed in todo], job.args.jobs, ended)
    else:
        for i, seed in enumerate(todo):
            fit_seed(run, job, seed, len(todo) - 1 - i)
            ended(seed)
    return done


def train(args):
    """One run; or, for several g, one run each and the table that compares them."""
    cls, settings = method_of(args)
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: give 1 or more")
    data = read(args, "BasicMotions" if args.data is None else args.data)
    clusters = clusters_for(data, args)
    args.seeds = list(dict.fromkeys(args.seeds or (0, 1, 2)))
    # What a fit refuses, two untrained series refuse (or epochs < 0) before there is a folder.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in {min(args.seeds), max(args.seeds)}:
            cls(1, seed=seed, **settings | {"epochs": min(0, settings["epochs"])}).fit(data.X[:2])
    name = re.sub(r"[^\w.-]", "_", data.name) + f"-{args.method}".removesuffix("-emtc")
    if Path(args.data or "").suffix.lower() in FORMATS:  # its name may tell the split
        end = re.search("_(TRAIN|TEST)$", Path(args.data).stem)
        args.split = end[1].lower() if end else "own"
    N, T, D = data.X.shape
    told = f"{data.name}, {args.split} split: {N} series, {T} steps, {D} variates"
    several = len(clusters) > 1
    folder = Path(args.out or f"runs/{name}" + "-clusters" * several)
    if several and first():
        report.check_folder(folder)
        held = lock(folder)  # until this process ends
        if not args.resume and any(folder.glob("g*")):
            held.close()
            set_aside(folder)
            held = lock(folder)
    for g in clusters:
        say(f"{told}; {g} clusters")
        train_one(Job(cls, settings, data, g, args), folder / f"g{g}" if several else folder)
    if several and first():
        say(f"{report.compare(folder, clusters, data)}\nwritten to {folder}")


def train_one(job, folder):
    """All seeds for one g, and their report."""
    data, args = job.data, job.args
    config = {"data": data.name, "split": args.split, "shape": data.X.shape, "n_clusters": job.g}
    config |= {"data_hash": data_hash(data.X, data.y), "method": args.method, "seeds": args.seeds}
    config |= {"oracle": args.oracle, **job.settings}
    config |= {"torch": torch.__version__, "numpy": np.__version__}
    run = Run(folder, config, args.resume) if first() else Follower()
    try:
        done = fit_seeds(run, job, args.seeds)
        if first():
            run.write_log(done)
            say(report.report(report.save_results(run, data, done)))
            page.make(run.folder)
            say(f"written to {folder}; to look at: {folder}/report.html")
    except (OSError, FloatingPointError) as error:
        told = f"{one_line(error)}; finished seeds and the last good checkpoint stay in {folder}"
        raise ValueError(f"{told}, for --resume") from None


def first():
    """Whether this is the only process, or torchrun's process 0, which alone writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def join_others(args):
    """Under torchrun: meet the other processes; only process 0 is heard."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        if not first():
            silence()
        if args.method != "emtc" or args.predict or args.jobs > 1:
            raise ValueError("torchrun shares the training of --method emtc, without --jobs")


def predict(args):
    """Labels of new data, in the order of its samples, by a saved model: CSV to --out or stdout."""
    others = "data clusters seeds oracle resume jobs method".split() + list(defaults(emtc.EMTC))
    for name in others:
        if name != "device" and getattr(args, name) != parser().get_default(name):
            raise ValueError(f"{flag(name)} does not apply to --predict")
    if args.out and os.path.exists(args.out):
        raise ValueError(f"{args.out} exists; name a new file")
    if os.path.isfile(args.model) and not intact(args.model):  # torch does not compare checksums
        raise ValueError(f"{args.model} is not a model file, or a damaged one")
    model, data = emtc.EMTC.load(args.model, args.device or "auto"), read(args, args.predict)
    text = report.labels_csv(data, {"cluster": model.predict(data.X)}, classes=False)
    if args.out:
        write(Path(args.out), text)
    else:
        print(text, end="", flush=True)


def refuse(error):
    """One line on standard error, and the exit status of bad input; a bug of ours is raised."""
    if isinstance(error, RuntimeError) and dist.is_initialized():
        error = ValueError(f"another process has ended; go on with --resume ({error})")
    if type(error) is RuntimeError and "memory" not in str(error):  # torch's MemoryError on a CPU
        raise error
    if isinstance(error, BrokenPipeError):
        silence()
    if first():
        print(f"train.py: error: {one_line(error)}", file=sys.stderr)
    return 2


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    open_streams()
    args = parser().parse_args(argv)
    try:
        join_others(args)
        if bool(args.predict) != bool(args.model):
            raise ValueError("--predict DATA and --model FILE (a model_seed<s>.pt) go together")
        say(report.table1()) if args.list else predict(args) if args.predict else train(args)
        return 0
    except KeyboardInterrupt:
        again = shlex.join(["python", sys.argv[0], *argv]).removesuffix(" --resume") + " --resume"
        if first() and not args.predict:
            print(f"\ntrain.py: interrupted; go on with: {again}", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        return refuse(error)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
