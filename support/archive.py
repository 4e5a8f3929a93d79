"""The UEA archive on Zenodo (one record a data set, with size and MD5 of each file), and the cache.

archive.json holds the number of each record: the 30 multivariate data sets of Bagnall et al. 2018
(arXiv 1811.00075) and the archive's larger edition of 133, as listed by the PyPI package aeon 1.6.
"""

import difflib
import hashlib
import http.client
import io
import json
import os
import re
import tempfile
import threading
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

from support.files import write

RECORDS = json.loads(Path(__file__).with_name("archive.json").read_text())
LISTING = "https://zenodo.org/api/records/{record}"
SCHEMES = ("https",)
STALL_S, TOTAL_S = 20, 1800  # a server that is silent; one that only trickles
MAX_LISTING, MAX_FILE = 4 << 20, 8 << 30  # bytes
FAILURES = (OSError, ValueError, http.client.HTTPException)
MAX_INFLATE = 100  # unpacked bytes per byte of a .npz file


class DataError(ValueError):
    """The user's mistake in one line: what was given, and what would be right."""

    def __init__(self, message):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


def cache_folder():
    """$EMTC_DATA, else the folder `emtc` in the user's cache."""
    user = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    usual = Path(user or Path(os.path.expanduser("~"), ".cache"), "emtc")
    return Path(os.environ.get("EMTC_DATA") or usual)


# ---- which files


def find(name, need, formats, data_dir=None, may_download=True):
    """{split: path} of a data set given by name or by its folder, downloaded if it is nowhere.

    Has the splits in `need`, and the other one where it lies beside them: both make the label map.
    """
    path, cache = Path(os.path.expanduser(name)), cache_folder()
    is_name = path.name == name != ".."
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: no such folder for data_dir")
    roots = [data_dir, "data", Path(__file__).resolve().parent.parent / "data", cache]
    roots = [Path(root) for root in roots if root is not None]
    for folder in [f for root in roots for f in (root / name, root) if is_name]:
        if files := _pair(folder, name, need, formats):
            return files
    if name and path.is_dir():
        return _in_folder(path, need, formats)
    if not is_name:
        raise DataError(
            f"{name[:200]!r}: no such file or folder; give a data set's name, its folder, or a "
            f"file ({', '.join(formats)})"
        )
    if name not in RECORDS:
        local = {s for r in roots if r.is_dir() for p in r.iterdir() for s in _stems(p, formats)}
        known = {n.lower(): n for n in (*RECORDS, *local)}
        close = [known[c] for c in difflib.get_close_matches(name[:80].lower(), known, 3, 0.5)]
        raise DataError(
            f"unknown data set {name[:80]!r}; close matches: {', '.join(close) or 'none'}; data of "
            "your own are given by their path"
        )
    if not may_download:
        hint = by_hand(name, cache / name)
        raise DataError(f"{name}: not on this machine, and download is off; {hint}")
    download(name, cache / name)
    return _in_folder(cache / name, need, formats)


def _in_folder(folder, need, formats):
    name, stems = folder.resolve().name, _stems(folder, formats)
    name = stems.pop() if len(stems) == 1 else name
    if files := _pair(folder, name, need, formats):
        return files
    splits = " and ".join(f"{name}_{split.upper()}" for split in need)
    raise DataError(f"{folder}: holds no {splits} as {' or '.join(formats)}")


def _pair(folder, name, need, formats):
    """The splits in the first format that has both, else in one that has those in `need`, or {}."""
    every = []
    for ext in formats:
        files = {s: folder / f"{name}_{s.upper()}{ext}" for s in ("train", "test")}
        every.append({s: p for s, p in files.items() if p.is_file()})
    return max([files for files in every if files.keys() >= {*need}], key=len, default={})


def _stems(folder, formats):
    """The names of which `folder` holds a split."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    splits = [re.fullmatch(r"(.+)_(?:TRAIN|TEST)(\.\w+)", name) for name in names]
    return {m[1] for m in splits if m and m[2] in formats}


# ---- download


def by_hand(name, folder):
    return (
        f"by hand: put {name}_TRAIN.ts and {name}_TEST.ts of "
        f"https://zenodo.org/records/{RECORDS[name]} into {folder}"
    )


def download(name, folder):
    """Both splits of `name` into `folder`, which changes only at the end, by two renames."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
            for file in _in_time(lambda late: _fetch(name, Path(part), late)):
                folder.mkdir(exist_ok=True)
                os.replace(file, folder / file.name)
    except FAILURES as e:
        why = str(e) or type(e).__name__
        raise DataError(f"cannot download {name}: {why}; {by_hand(name, folder)}") from None


def _in_time(work):
    """work(late) in a thread of its own, so that no server can hold us longer than TOTAL_S."""
    late, done, failed = threading.Event(), [], []

    def run():
        try:
            done.extend(work(late))
        except FAILURES as e:  # the caller's thread raises it
            failed.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TOTAL_S)
    if thread.is_alive():
        late.set()
        raise ValueError(f"not done after {TOTAL_S} s")
    if failed:
        raise failed[0]
    return done


def _fetch(name, folder, late):
    """Look up the record, then download and check its two files; returns their paths."""
    listing = b"".join(_blocks(LISTING.format(record=RECORDS[name]), MAX_LISTING, late))
    try:
        files = {
            f["key"]: (str(f["links"]["self"]), int(f["size"]), f["checksum"])
            for f in json.loads(listing)["files"]
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the server's answer is no list of files") from None
    paths = [folder / f"{name}_{split}.ts" for split in ("TRAIN", "TEST")]
    for path in paths:
        if path.name not in files:
            raise ValueError(f"the record has no file {path.name}")
        url, size, checksum = files[path.name]
        if not 0 < size <= MAX_FILE:
            raise ValueError(f"{path.name} has {size} bytes; at most {MAX_FILE} are taken")
        md5, got = hashlib.md5(usedforsecurity=False), 0
        with open(path, "wb") as file:
            for block in _blocks(url, size, late):
                file.write(block)
                md5.update(block)
                got += len(block)
        if got != size:
            raise ValueError(f"{path.name} has {size} bytes, and the server sent {got}")
        if checksum != f"md5:{md5.hexdigest()}":
            raise ValueError(f"{path.name} is not the file that the record names ({checksum})")
    return paths


def _blocks(url, limit, late):
    """The answer of a server in blocks, at most `limit` bytes, until the event `late`."""
    request = urllib.request.Request(_allowed(url), headers={"User-Agent": "emtc-educational/1"})
    with urllib.request.build_opener(_Redirect).open(request, timeout=STALL_S) as reply:
        while (block := reply.read1(1 << 16)) and not late.is_set():
            limit -= len(block)
            if limit < 0:
                raise ValueError("the server sends more than it announced")
            yield block


class _Redirect(urllib.request.HTTPRedirectHandler):
    """urllib's rule (at most ten, none more than four times), and each address is checked."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return super().redirect_request(req, fp, code, msg, headers, _allowed(newurl))


def _allowed(url):
    if url.partition(":")[0] not in SCHEMES:
        raise ValueError(f"{url[:80]!r} is not {' or '.join(SCHEMES)}")
    return url


# ---- arrays in files, and copies of what was read


def arrays_of(path, names):
    """{name: array} of those `names` that a .npz file has; ValueError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as z:
            found = {n: z.getinfo(f"{n}.npy") for n in names if f"{n}.npy" in z.namelist()}
            size = sum(member.file_size for member in found.values())
            if size > min(MAX_FILE, MAX_INFLATE * max(path.stat().st_size, 1 << 20)):
                raise ValueError(f"would unpack to {size} bytes")
            arrays = {}
            for name, member in found.items():
                with z.open(member) as file:
                    arrays[name] = np.lib.format.read_array(file)
            return arrays
    except (OSError, MemoryError):
        raise
    except Exception as e:  # zipfile and numpy have many words for damaged bytes
        raise ValueError(str(e) or type(e).__name__) from e


def copy_of(path):
    """Where the binary copy of the text file `path` lies."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return cache_folder() / "parsed" / f"{name}.npz"


def remember(path, key, parsed):
    """Keep what was read from `path`, an array and lists; `key` stands for the file's content."""
    X, *lists = parsed
    file = io.BytesIO()
    np.savez(file, X=X, rest=json.dumps([key, *lists]))
    try:
        copy_of(path).parent.mkdir(parents=True, exist_ok=True)
        write(copy_of(path), file.getbuffer(), lasting=False)
    except OSError:
        pass  # a cache that cannot be written only costs time


def recall(path, key):
    """What was kept with the same `key`, or None where there is nothing or it is damaged."""
    try:
        found = arrays_of(copy_of(path), ("X", "rest"))
        old, *lists = json.loads(str(found["rest"]))
        return (found["X"], *lists) if old == key else None
    except (OSError, KeyError, ValueError):
        return None
