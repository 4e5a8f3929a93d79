"""A run's folder: a kill at any moment costs at most the epoch that was being computed.

Each file is written beside and renamed, so it is whole or absent. A seed counts as finished once
its seed_<s>.npz is there; an unfinished one has checkpoint_seed<s>.pt, renewed after every epoch.
config.json says which run it is. All other files are made from these, and made again on a resume.
A lock of the operating system keeps a second process out, and ends with the process.
"""

import contextlib
import io
import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from support.archive import arrays_of
from support.files import intact, write, write_json

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

START = {"model": None, "history": [], "oracle": None, "seconds": 0.0, "trace": None}
# What torch, numpy and json make of a whole container with something else in it.
WRONG = (LookupError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError)
RECORD = ("record", "history", "oracle", "baselines")  # what a finished seed tells beside arrays


def lock(folder):
    """Hold `folder` until this process ends, however it ends. The file object is the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = open(folder / ".lock", "a")
    busy = f"{folder}: another run is writing there; wait for its end, or give another --out"
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(busy) from None
    except OSError:
        return handle  # a file system without locks
    if os.fstat(handle.fileno()).st_ino != os.stat(folder / ".lock").st_ino:
        raise ValueError(busy)  # the other run has renamed the folder meanwhile
    return handle


def set_aside(folder):
    """Rename `folder` to the first of <folder>.1, .2, ... that is free."""
    names = (folder.with_name(f"{folder.name}.{i}") for i in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    os.rename(folder, aside)
    print(f"note: the older run in {folder.name} is now {aside}", file=sys.stderr)


class Run:
    """A run's folder, locked for this process. Nothing in it changes before `begin`."""

    def __init__(self, folder, config, resume):
        self.folder, self.config = Path(os.path.abspath(folder)), json.loads(json.dumps(config))
        self._old_config()  # refuses a foreign folder before there is a lock file in it
        self.lock = lock(self.folder)
        self.old, self.noted = self._old_config(), set()
        self.begun = resume and self.old is not None
        if self.begun:
            self._go_on(folder)
        elif resume:
            print(f"note: no run in {folder} yet; starting one", file=sys.stderr)

    def _go_on(self, folder):
        """Refuse another run's settings or data; further seeds may join the old ones."""
        old, new = self.old, self.config
        if {*old["seeds"]} <= {*new["seeds"]}:
            old = old | {"seeds": new["seeds"]}
        if differ := [key for key in old | new if old.get(key) != new.get(key)]:
            told = ", ".join(f"{key} {old.get(key)} (now {new.get(key)})" for key in differ)
            raise ValueError(f"{folder} was made with {told}; use those, or another --out")
        for pattern in ("*.part", "*.pt.*.tmp"):  # unfinished files that a kill left behind
            for file in self.folder.glob(pattern):
                file.unlink()

    def __getstate__(self):
        return {**self.__dict__, "lock": None}  # a process that fits one seed for this one

    def _old_config(self):
        path = self.folder / "config.json"
        if path.exists():
            try:
                old = json.loads(path.read_text(encoding="utf-8"))
                if old["data_hash"] and old["seeds"]:
                    return old
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path} is not the config of a run; give another --out") from None
        if any(f.name != ".lock" and f.suffix != ".part" for f in self.folder.glob("*")):
            raise ValueError(f"{self.folder} holds files, but no run; give another --out")

    def begin(self):
        """Take the folder for this run; the older run in it, if any, moves aside as a whole."""
        if self.begun and self.old == self.config:
            return
        if self.old is not None and not self.begun:
            if not fcntl:
                self.lock.close()  # Windows renames no folder with an open file
            set_aside(self.folder)
            self.lock = lock(self.folder)
        write_json(self.folder / "config.json", self.config)
        self.begun = True

    def _read(self, name, read):
        """read(path), or None where the file is absent, damaged or not what its name says."""
        path = self.folder / name
        if not self.begun or not path.exists():
            return None
        with contextlib.suppress(*WRONG):
            if intact(path):  # torch and numpy would not look at the checksums
                return read(path)
        if name not in self.noted:
            print(f"note: {name} is damaged; what it held is computed again", file=sys.stderr)
        self.noted.add(name)

    def finished(self, seed):
        """{"labels": (N,) int64, "record", "history", ...} of a finished seed, or None."""

        def read(path):
            labels, record = arrays_of(path, ("labels", "record")).values()
            told, N, g = json.loads(str(record)), self.config["shape"][0], self.config["n_clusters"]
            if labels.shape != (N,) or labels.dtype.kind != "i" or not {*labels} <= {*range(g)}:
                raise ValueError("no labels of this run")
            return {"labels": labels, **{key: told[key] for key in RECORD}}

        if found := self._read(f"seed_{seed}.npz", read):
            (self.folder / f"checkpoint_seed{seed}.pt").unlink(missing_ok=True)  # left by a kill
        return found

    def finish(self, seed, model, record, **more):
        """Store a seed for good. The .npz comes last: with it the seed is finished."""
        if hasattr(model, "save"):
            try:
                model.save(self.folder / f"model_seed{seed}.pt")
            except RuntimeError:  # torch's writer where a file would raise OSError
                raise OSError(f"cannot write model_seed{seed}.pt; is the disk full?") from None
        names = ("labels", "embedding", "importance", "mask")  # a related method has two of them
        arrays = {n: getattr(model, n + "_") for n in names if hasattr(model, n + "_")} | more
        file = io.BytesIO()
        np.savez(file, record=json.dumps(record), **arrays)
        write(self.folder / f"seed_{seed}.npz", file.getbuffer())
        (self.folder / f"checkpoint_seed{seed}.pt").unlink(missing_ok=True)

    def checkpoint(self, seed):
        """The state after the last whole epoch of an unfinished seed, or that before its first."""

        def read(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
            return {key: state[key] for key in START}

        return self._read(f"checkpoint_seed{seed}.pt", read) or {**START, "history": []}

    def save_checkpoint(self, seed, state):
        file = io.BytesIO()
        torch.save(state, file)
        write(self.folder / f"checkpoint_seed{seed}.pt", file.getbuffer(), lasting=False)

    def write_log(self, found):
        """log.jsonl anew, from {seed: {"history": ...}}, whatever a kill left of its last line."""
        lines = [log_line(s, r) for s in self.config["seeds"] for r in found[s]["history"]]
        write(self.folder / "log.jsonl", "".join(lines))

    def log(self, seed, record):
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(log_line(seed, record))


class Follower:
    """Stands for the `Run` in a process of torchrun that writes nothing: no method does a thing."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def shared(value):
    """What process 0 has, in each process of torchrun; without torchrun, the value itself."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]


def log_line(seed, record):
    return json.dumps({"seed": seed, **record}) + "\n"
