"""A training run's folder: a kill at any moment costs at most the epoch that was being computed.

Each file is written beside and renamed, so it is whole or absent. A seed counts as finished once
its seed_<s>.npz is there; an unfinished one has checkpoint_seed<s>.pt, renewed after every epoch.
config.json says which run it is. All other files are made from these, and made again on a resume.
A lock of the operating system keeps a second process out, and ends with the process.
"""

import io
import itertools
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

import emtc

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None

LITTER = ("*.part", "*.pt.*.tmp")  # unfinished files that a kill left behind


def write(path, content, lasting=True):
    """`content`, str or bytes, becomes the file `path` at once: a reader finds it old or new, never half."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if lasting:  # also through a power cut
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path, content):
    write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def lock(folder):
    """Hold `folder` until this process ends, however it ends. The file object is the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = open(folder / ".lock", "a")
    busy = f"{folder}: another run is writing there; wait for its end, or give another --out"
    if fcntl:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(busy) from None
        except OSError:  # a file system without locks
            return handle
        if os.fstat(handle.fileno()).st_ino != os.stat(folder / ".lock").st_ino:  # renamed meanwhile
            raise ValueError(busy)
    return handle


class Run:
    """A run's folder, locked for this process. Nothing in it changes before `begin`."""

    def __init__(self, folder, config, resume):
        self.folder, self.config = Path(os.path.abspath(folder)), json.loads(json.dumps(config))
        if self.folder.is_dir():
            self._old_config()  # refuses a foreign folder before there is a lock file in it
        self.lock = lock(self.folder)
        self.old = self._old_config()
        self.begun = resume and self.old is not None
        if resume and not self.begun:
            print(f"note: no run in {folder} yet; starting one", file=sys.stderr)
        if self.begun and self.old != self.config:
            differ = [f"{key} {self.old.get(key)} (now {self.config.get(key)})" for key in
                      {**self.old, **self.config} if self.old.get(key) != self.config.get(key)]
            raise ValueError(f"{folder} was made with {', '.join(differ)}; use those, or another --out")
        for pattern in LITTER if self.begun else ():
            for file in list(self.folder.glob(pattern)):
                file.unlink()

    def _old_config(self):
        path = self.folder / "config.json"
        if path.exists():
            try:
                old = json.loads(path.read_text(encoding="utf-8"))
                if old["data_hash"]:
                    return old
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path} is not the config of a run; give another --out") from None
        if {f.name for f in self.folder.iterdir()} - {".lock", "config.json.part"}:
            raise ValueError(f"{self.folder} holds files, but no run; give another --out")
        return None

    def begin(self):
        """Take the folder for this run; the older run in it, if any, moves aside as a whole."""
        if self.begun:
            return
        if self.old is not None:
            names = (self.folder.with_name(f"{self.folder.name}.{i}") for i in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            os.rename(self.folder, aside)
            self.lock = lock(self.folder)
            print(f"note: the run that was in {self.folder.name} is now in {aside}", file=sys.stderr)
        write_json(self.folder / "config.json", self.config)
        self.begun = True

    def _intact(self, name):
        """Whether a zipped file is there whole; torch and numpy would not look at its checksums."""
        if not self.begun or not (self.folder / name).exists():
            return False
        if not intact(self.folder / name):
            print(f"note: {name} is damaged; what it held is computed again", file=sys.stderr)
            return False
        return True

    def finished(self, seed):
        """{"labels": (N,) int64, "record", "history", ...} of a finished seed, or None."""
        if not self._intact(f"seed_{seed}.npz"):
            return None
        (self.folder / f"checkpoint_seed{seed}.pt").unlink(missing_ok=True)  # a kill may leave it
        with np.load(self.folder / f"seed_{seed}.npz") as file:
            return {"labels": file["labels"], **json.loads(str(file["record"]))}

    def finish(self, seed, model, record):
        """Store a seed for good. The .npz comes last: with it the seed is finished."""
        if isinstance(model, emtc.EMTC):
            try:
                model.save(self.folder / f"model_seed{seed}.pt")
            except RuntimeError:  # torch's writer where a file would raise OSError
                raise OSError(f"cannot write model_seed{seed}.pt; is the disk full?") from None
        arrays = {name: getattr(model, name + "_") for name in ("labels", "embedding", "importance", "mask")
                  if hasattr(model, name + "_")}
        buffer = io.BytesIO()
        np.savez(buffer, record=json.dumps(record), **arrays)
        write(self.folder / f"seed_{seed}.npz", buffer.getvalue())
        (self.folder / f"checkpoint_seed{seed}.pt").unlink(missing_ok=True)

    def checkpoint(self, seed):
        """The state after the last whole epoch of an unfinished seed, or that before its first."""
        name = f"checkpoint_seed{seed}.pt"
        if self._intact(name):
            return torch.load(self.folder / name, map_location="cpu", weights_only=True)
        return {"model": None, "history": [], "oracle": None, "seconds": 0.0}

    def save_checkpoint(self, seed, state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write(self.folder / f"checkpoint_seed{seed}.pt", buffer.getvalue(), lasting=False)

    def write_log(self, histories):
        """log.jsonl anew: whole lines of {seed: history}, whatever a kill left of the last one."""
        write(self.folder / "log.jsonl", "".join(log_line(seed, record) for seed in histories
                                                 for record in histories[seed]))

    def log(self, seed, record):
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(log_line(seed, record))


def log_line(seed, record):
    return json.dumps({"seed": seed, **record}) + "\n"


def intact(path):
    """Whether each member of the zip file `path` has its checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # whatever zipfile makes of damaged bytes
        return False
