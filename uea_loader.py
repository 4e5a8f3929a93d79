"""The UEA archive, by name or by path, as X (N, T, D) float32.

    from uea_loader import load
    X, y, classes, name = load("BasicMotions", split="test")

A name is looked up in `data_dir`, `./data` (and the data folder beside this file), then the cache folder
($EMTC_DATA, else the user's cache), then downloaded. Text is read by `uea_text.py`: missing entries and the end of
shorter series are NaN. Every user error is one `DataError` line. Archive: Bagnall et al. 2018, arXiv 1811.00075.
aeon, sktime and tsai use (N, D, T): `X.transpose(0, 2, 1)` goes there and back; tslearn uses (N, T, D).
"""

import difflib
import hashlib
import http.client
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tempfile
import threading
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from uea_text import DATA_LINE, DataError, Parsed, parse, plain, read_header, usable

URL = "https://timeseriesclassification.com/aeon-toolkit/{name}.zip"
STALL_S, TOTAL_S = 20, 1800                  # a server that is silent; one that only trickles
MAX_ZIP, MAX_UNPACKED = 2 << 30, 8 << 30     # bytes
MAX_INFLATE = 100                            # unpacked bytes per zipped byte; number text needs 3 to 10
COPY_FROM = 1 << 20                          # bytes of text from which a binary copy pays; 1 MB is read in ~10 ms
FORMATS = (".ts", ".arff", ".npz")
ARCHIVE = """ArticularyWordRecognition AsphaltObstaclesCoordinates AsphaltPavementTypeCoordinates
AsphaltRegularityCoordinates AtrialFibrillation BasicMotions CharacterTrajectories Cricket DuckDuckGeese EigenWorms
Epilepsy ERing EthanolConcentration FaceDetection FingerMovements HandMovementDirection Handwriting Heartbeat
InsectWingbeat JapaneseVowels Libras LSST MotorImagery NATOPS PEMS-SF PenDigits PhonemeSpectra RacketSports
SelfRegulationSCP1 SelfRegulationSCP2 SpokenArabicDigits StandWalkJump UWaveGestureLibrary""".split()
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError,
               KeyError, SyntaxError, TypeError, OverflowError)


class Dataset(NamedTuple):
    """X (N, T, D) float32, NaN = missing or padding; y (N,) int64 in [0, len(classes)), or None."""

    X: np.ndarray
    y: np.ndarray | None
    classes: list[str]
    name: str


def load(name_or_path, split="test", data_dir=None, download=True):
    """Read one data set of the archive, or data of one's own.

    name_or_path: a name ("BasicMotions"), a data set's folder (`Name_TRAIN.*`, `Name_TEST.*`), or one `.ts`,
    `.arff` or `.npz` file (`X` (N, T, D) or (N, T), and optionally `y` (N,)), which is read as it is, whatever
    `split` says. split: "train", "test" or "all" (train, then test). The splits of a name or folder share one label
    map: the header's class order where it has one, else the sorted names.
    Returns a `Dataset` with N, T, D >= 1 and finite or NaN values; y is None where the file has no labels.
    Raises `DataError`.
    """
    if split not in ("train", "test", "all"):
        raise DataError(f"split is {split!r}; it must be 'train', 'test' or 'all'")
    try:
        path = Path(name_or_path).expanduser()
        if path.suffix.lower() in FORMATS:
            return _assemble({split: path}, [split])
        need = ["train", "test"] if split == "all" else [split]
        return _assemble(_find(str(name_or_path), path, need, data_dir, download), need)
    except MemoryError:
        raise DataError(f"{name_or_path}: does not fit into this machine's memory") from None
    except OSError as e:
        raise DataError(f"{str(e.filename or name_or_path)[-200:]}: {e.strerror or e}") from None


def _assemble(files, need):
    """Read the splits in `need` and put them under the label map of all `files`."""
    raws = {s: _read(files[s]) for s in need}
    name = re.sub(r"_(TRAIN|TEST)$", "", files[need[0]].stem)
    y, classes = None, []
    if all(r.labels is not None for r in raws.values()):
        names = [raws[s].classes if s in raws else _classes_of(files[s]) for s in sorted(files, reverse=True)]
        if not all(names):   # a header without class names: only the labels of all files give the map
            every = [raws[s] if s in raws else _read(files[s]) for s in files]
            names = [sorted({c for r in every for c in r.labels or []}, key=_natural)]
        classes = list(dict.fromkeys(c for group in names for c in group))
        code = {c: i for i, c in enumerate(classes)}
        y = np.array([code[c] for r in raws.values() for c in r.labels], dtype=np.int64)   # (N,)
    elif any(r.labels is not None for r in raws.values()):
        raise DataError(f"{name}: one split has labels and the other has none")
    parts = [r.X for r in raws.values()]
    if len(parts) == 1:
        return Dataset(parts[0], y, classes, name)
    (n, T0, D), (m, T1, D1) = (x.shape for x in parts)
    if D != D1:
        raise DataError(f"{name}: train has {D} variates and test has {D1}")
    X = np.full((n + m, max(T0, T1), D), np.nan, np.float32)
    X[:n, :T0], X[n:, :T1] = parts   # (N, T, D)
    return Dataset(X, y, classes, name)


def _natural(label):
    """Sort key: numbers by value, then words."""
    try:
        return (0, float(label), label) if float(label) == float(label) else (1, 0.0, label)
    except ValueError:
        return (1, 0.0, label)


# ---- which files

def _cache_dir():
    if os.environ.get("EMTC_DATA"):
        return Path(os.environ["EMTC_DATA"])
    user = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(user) if user else Path(os.path.expanduser("~")) / ".cache") / "emtc"


def _files_in(folder, name):
    """{"train": path, "test": path} in the first format that `folder` has, perhaps one of them or none."""
    for ext in FORMATS:
        found = {s: folder / f"{name}_{s.upper()}{ext}" for s in ("train", "test")}
        found = {s: p for s, p in found.items() if p.is_file()}
        if found:
            return found
    return {}


def _find(name, path, need, data_dir, download):
    """The files of a data set given by folder or by name, downloaded if they are nowhere."""
    if path.name != name or name in ("", ".."):
        if not name or not path.is_dir():
            raise DataError(f"{name[:200]!r}: no such file or folder; give a data set's name, its folder, or a file "
                            f"({', '.join(FORMATS)})")
        return _in_folder(path, need)
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: no such folder for data_dir")
    cache = _cache_dir()
    roots = [Path(r) for r in (data_dir, "data", Path(__file__).resolve().parent / "data", cache) if r is not None]
    for folder in [f for r in roots for f in (r / name, r)]:
        files = _files_in(folder, name)
        if all(s in files for s in need):
            return files
    if path.is_dir():
        return _in_folder(path, need)
    if name not in ARCHIVE:
        local = [p.name for r in roots if r.is_dir() for p in r.iterdir() if _files_in(p, p.name)]
        known = {n.lower(): n for n in (*ARCHIVE, *local)}
        close = [known[c] for c in difflib.get_close_matches(name[:80].lower(), known, 3, 0.5)]
        raise DataError(f"unknown data set {name[:80]!r}; close matches: {', '.join(close) or 'none'}; data of your "
                        "own are given by their path")
    if not download:
        raise DataError(f"{name}: not on this machine, and download is off; {_by_hand(name, cache)}")
    _download(name, cache)
    return _in_folder(cache / name, need)


def _in_folder(folder, need):
    name = folder.resolve().name
    stems = {re.sub(r"_(TRAIN|TEST)$", "", p.stem) for p in folder.iterdir() if p.suffix in FORMATS}
    name = name if name in stems or len(stems) != 1 else stems.pop()
    files = _files_in(folder, name)
    for s in need:
        if s not in files:
            raise DataError(f"{folder}: holds no {name}_{s.upper()} as .ts, .arff or .npz")
    return files


# ---- one file, and its binary copy in the cache folder

def _read(path):
    """One file as `Parsed`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    data = path.read_bytes()
    if len(data) < COPY_FROM:
        return parse(data, path)
    key = ["emtc 1", len(data), zlib.crc32(data)]
    copy = _cache_dir() / "parsed" / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".bin")
    raw = _recall(copy, key)
    if raw is None:
        raw = parse(data, path)
        _remember(copy, key, raw)
    return raw


def _classes_of(path):
    """The class names in the header of `path`, without reading its data."""
    if path.suffix.lower() == ".npz":
        return []
    with open(path, "rb") as f:
        head = f.read(1 << 16)
        while not DATA_LINE.search(plain(head)) and (more := f.read(len(head))):
            head += more
    return read_header(plain(head), path).classes


def _recall(copy, key):
    """The parsed file from its binary copy, or None unless the copy is whole and was made from these bytes."""
    try:
        with open(copy, "rb") as f:
            check, meta = f.readline(32), f.readline()
            X = np.fromfile(f, "<f4")
        if int(check) != zlib.crc32(X, zlib.crc32(meta)):
            return None
        meta = json.loads(meta)
        return Parsed(X.reshape(meta["shape"]), meta["labels"], meta["classes"]) if meta["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(copy, key, raw):
    meta = {"key": key, "shape": raw.X.shape, "labels": raw.labels, "classes": raw.classes}
    meta = json.dumps(meta).encode() + b"\n"
    part = None
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=copy.parent, delete=False) as f:
            part = f.name
            f.write(b"%d\n" % zlib.crc32(raw.X, zlib.crc32(meta)) + meta)
            f.write(raw.X.astype("<f4", copy=False))
        os.replace(part, copy)
        part = None
    except OSError:
        return   # a cache that cannot be written only costs time
    finally:
        if part and os.path.exists(part):
            os.unlink(part)


def _read_npz(path):
    try:
        with zipfile.ZipFile(path) as z:
            size = sum(m.file_size for m in z.infolist() if m.filename in ("X.npy", "y.npy"))
        if size > min(MAX_UNPACKED, MAX_INFLATE * max(path.stat().st_size, 1 << 20)):
            raise DataError(f"{path}: would unpack to {size} bytes")
        with np.load(path, allow_pickle=False) as f:
            if "X" not in f.files:
                raise DataError(f"{path}: has no array X, but {', '.join(f.files)[:80] or 'nothing'}")
            X, y = f["X"], f["y"] if "y" in f.files else None
    except DataError:
        raise
    except _BROKEN_ZIP as e:
        raise DataError(f"{path}: not a readable .npz file ({str(e)[:80] or type(e).__name__})") from None
    if X.dtype.kind not in "fiub" or X.ndim not in (2, 3) or 0 in X.shape:
        raise DataError(f"{path}: X is {X.dtype} {X.shape}; it must be numbers of shape (N, T, D)")
    if y is not None and (y.shape != X.shape[:1] or y.dtype.kind not in "fiubU"):
        raise DataError(f"{path}: y is {y.dtype} {y.shape}; it must be integers or strings of shape ({len(X)},)")
    if y is not None and y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(f"{path}: y has a missing label")
        y = np.array([f"{c:g}" for c in y])   # 1.0 is class 1
    with np.errstate(over="ignore"):
        X = np.ascontiguousarray(X.reshape(*X.shape[:2], -1), np.float32)   # (N, T) -> (N, T, 1)
    return Parsed(usable(X, path), None if y is None else [str(c) for c in y.tolist()], [])


# ---- download

def _by_hand(name, cache):
    return (f"by hand: unpack {URL.format(name=name)} and put {name}_TRAIN.ts and {name}_TEST.ts (or .arff) into "
            f"{cache / name}")


def _download(name, cache):
    """Fetch, check and unpack the archive's zip. `cache` changes only at the end, by renames."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as part:
            part = Path(part)
            _fetch(URL.format(name=name), part / "zip")
            _unpack(part / "zip", part / name, name)
            if not (cache / name).exists():
                os.replace(part / name, cache / name)
            else:   # a folder that has one split only, or another process was faster
                for file in (part / name).iterdir():
                    os.replace(file, cache / name / file.name)
    except (OSError, http.client.HTTPException, *_BROKEN_ZIP) as e:
        raise DataError(f"cannot download {name}: {str(e) or type(e).__name__}; {_by_hand(name, cache)}") from None


def _fetch(url, target):
    """Download in a thread of its own, so that no server can hold us longer than TOTAL_S."""
    failed = []

    def work():
        try:
            with urllib.request.urlopen(url, timeout=STALL_S) as reply, open(target, "wb") as f:
                size, got = reply.headers.get("Content-Length"), 0
                while block := reply.read(1 << 16):
                    got += len(block)
                    if got > MAX_ZIP:
                        raise DataError(f"the server sends more than {MAX_ZIP} bytes")
                    f.write(block)
            if size is not None and int(size) != got:
                raise DataError(f"the server announced {size} bytes and sent {got}")
        except Exception as e:   # whatever it is, the caller's thread raises it
            failed.append(e)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(TOTAL_S)
    if thread.is_alive():
        raise DataError(f"not done after {TOTAL_S} s")
    if failed:
        raise failed[0]


def _unpack(zip_path, folder, name):
    """Only the two files that are needed, by their base names; an unsafe member condemns the whole zip."""
    if not zipfile.is_zipfile(zip_path):
        raise DataError("the server's answer is no zip file (a page of text?) or not a whole one")
    with zipfile.ZipFile(zip_path) as z:
        members = {}
        for m in z.infolist():
            inside = PurePosixPath(m.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or stat.S_ISLNK(m.external_attr >> 16):
                raise DataError(f"the zip has an unsafe member {m.filename[:80]!r}")
            members[inside.name] = m
        pairs = [[f"{name}_TRAIN{ext}", f"{name}_TEST{ext}"] for ext in (".ts", ".arff")]
        pair = next((p for p in pairs if members.keys() >= {*p}), None)
        if not pair:
            raise DataError(f"the zip holds no {name}_TRAIN and {name}_TEST as .ts or .arff")
        size = sum(members[file].file_size for file in pair)
        if size > min(MAX_UNPACKED, MAX_INFLATE * max(zip_path.stat().st_size, 1 << 20)):
            raise DataError(f"the zip would unpack to {size} bytes")
        folder.mkdir()
        for file in pair:
            with z.open(members[file]) as source, open(folder / file, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            _classes_of(folder / file)   # a file without a readable header is not kept
