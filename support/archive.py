"""The UEA archive on Zenodo (one record a data set, with size and MD5 of each file), and the cache.

archive.json holds the number of each record: the 30 multivariate data sets of Bagnall et al. 2018
(arXiv 1811.00075) and the archive's larger edition of 133, as listed by the PyPI package aeon 1.6.
"""

import contextlib
import difflib
import hashlib
import http.client
import io
import json
import multiprocessing.pool
import os
import re
import urllib.request as web
import zipfile
from pathlib import Path

import numpy as np

from support.files import write

RECORDS = json.loads(Path(__file__).with_name("archive.json").read_text())
LISTING = "https://zenodo.org/api/records/{record}"
# Nothing but https is opened, not even after a redirect.
HANDLERS = [web.ProxyHandler, web.HTTPSHandler, web.UnknownHandler]
HANDLERS += [web.HTTPRedirectHandler, web.HTTPDefaultErrorHandler, web.HTTPErrorProcessor]
STALL_S, TOTAL_S = 20, 1800  # a server that is silent; one that only trickles
MAX_LISTING, MAX_FILE = 4 << 20, 8 << 30  # bytes
FAILURES = (OSError, ValueError, http.client.HTTPException, multiprocessing.TimeoutError)
MAX_INFLATE = 100  # unpacked bytes per byte of a .npz file


class DataError(ValueError):
    """The user's mistake in one line: what was given, and what would be right."""

    def __init__(self, message):
        super().__init__("".join(c if c.isprintable() else "?" for c in message))


def cache_folder():
    """$EMTC_DATA, else the folder `emtc` in the user's cache."""
    user = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(os.environ.get("EMTC_DATA") or os.path.expanduser(f"{user}/emtc"))


def find(name, need, formats, data_dir=None, may_download=True):
    """{split: path} of a data set given by name or by its folder, downloaded if it is nowhere.

    Has the splits in `need`, and the other one where it lies beside them: both make the label map.
    """
    path, cache = Path(os.path.expanduser(name)), cache_folder()
    is_name = path.name == name != ".."
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: no such folder for data_dir")
    roots = [] if data_dir is None else [Path(data_dir)]
    roots += [Path("data"), Path(__file__).resolve().parent.parent / "data", cache]
    places = [(f, name) for root in roots for f in (root / name, root) if is_name]
    if is_folder := name and path.is_dir():
        stems = _stems(path, formats)
        places.append((path, stems.pop() if len(stems) == 1 else path.resolve().name))
    for folder, stem in places:
        if files := _pair(folder, stem, need, formats):
            return files
    if is_folder:
        splits = " and ".join(f"{stem}_{split.upper()}" for split in need)
        raise DataError(f"{path}: holds no {splits} as {' or '.join(formats)}")
    if not is_name:
        right = f"a data set's name, its folder, or a file ({', '.join(formats)})"
        raise DataError(f"{name[:200]!r}: no such file or folder; give {right}")
    if name not in RECORDS:
        local = {s for root in roots for p in root.glob("*") for s in _stems(p, formats)}
        known = {n.lower(): n for n in (*RECORDS, *local)}
        close = [known[c] for c in difflib.get_close_matches(name[:80].lower(), known, 3, 0.5)]
        told = f"unknown data set {name[:80]!r}; close matches: {', '.join(close) or 'none'}"
        raise DataError(f"{told}; data of your own are given by their path")
    download(name, cache / name, may_download)
    return _pair(cache / name, name, need, formats)


def _pair(folder, name, need, formats):
    """The splits in the first format that has both, else in one that has those in `need`, or {}."""
    paths = [{s: folder / f"{name}_{s.upper()}{ext}" for s in ("train", "test")} for ext in formats]
    every = [{s: p for s, p in files.items() if p.is_file()} for files in paths]
    return max([files for files in every if files.keys() >= {*need}], key=len, default={})


def _stems(folder, formats):
    """The names of which `folder` holds a split."""
    splits = [re.fullmatch(r"(.+)_(?:TRAIN|TEST)(\.\w+)", p.name) for p in folder.glob("*_T*")]
    return {m[1] for m in splits if m and m[2] in formats}


def download(name, folder, allowed=True):
    """Both splits of `name` into `folder`, in which nothing changes before both are checked."""
    by_hand = f"by hand: put {name}_TRAIN.ts and {name}_TEST.ts of "
    by_hand += f"https://zenodo.org/records/{RECORDS[name]} into {folder}"
    if not allowed:
        raise DataError(f"{name}: not on this machine, and download is off; {by_hand}")
    try:
        with multiprocessing.pool.ThreadPool(1) as thread:  # so that no server can hold us longer
            files = thread.apply_async(_fetch, (name,)).get(TOTAL_S)
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            write(folder / file, data)
    except FAILURES as e:
        why = str(e) or f"{type(e).__name__} after at most {TOTAL_S} s"
        raise DataError(f"cannot download {name}: {why}; {by_hand}") from None


def _fetch(name):
    """{file name: its bytes, checked} of the two splits, by the record's list of files."""
    listing = _get(LISTING.format(record=RECORDS[name]), MAX_LISTING)
    try:
        listed = json.loads(listing)["files"]
        files = {f["key"]: (str(f["links"]["self"]), int(f["size"]), f["checksum"]) for f in listed}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the server's answer is no list of files") from None
    found = {}
    for file in (f"{name}_TRAIN.ts", f"{name}_TEST.ts"):
        if file not in files:
            raise ValueError(f"the record has no file {file}")
        url, size, checksum = files[file]
        if not 0 < size <= MAX_FILE:
            raise ValueError(f"{file} has {size} bytes; at most {MAX_FILE} are taken")
        found[file] = data = _get(url, size)
        if len(data) != size:
            raise ValueError(f"{file} has {size} bytes, and the server sent {len(data)}")
        if checksum != f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}":
            raise ValueError(f"{file} is not the file that the record names ({checksum})")
    return found


def _get(url, limit):
    """The bytes that a server answers, at most `limit`."""
    opener = web.OpenerDirector()
    for handler in HANDLERS:
        opener.add_handler(handler())
    request = web.Request(url, headers={"User-Agent": "emtc-educational/1"})
    with opener.open(request, timeout=STALL_S) as reply:
        data = reply.read(limit + 1)
    if len(data) > limit:
        raise ValueError("the server sends more than it announced")
    return data


def arrays_of(path, names):
    """{name: array} of those `names` that a .npz file has; ValueError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as z:
            found = {n: z.getinfo(f"{n}.npy") for n in names if f"{n}.npy" in z.namelist()}
            size = sum(member.file_size for member in found.values())
            if size > min(MAX_FILE, MAX_INFLATE * max(path.stat().st_size, 1 << 20)):
                raise ValueError(f"would unpack to {size} bytes")
            return {n: np.lib.format.read_array(z.open(member)) for n, member in found.items()}
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
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        copy_of(path).parent.mkdir(parents=True, exist_ok=True)
        write(copy_of(path), file.getbuffer(), lasting=False)


def recall(path, key):
    """What was kept with the same `key`, or None where there is nothing or it is damaged."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        found = arrays_of(copy_of(path), ("X", "rest"))
        old, *lists = json.loads(str(found["rest"]))
        return (found["X"], *lists) if old == key else None
