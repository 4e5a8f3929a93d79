"""Reading speed: ours against scipy, aeon, sktime and tslearn on the same files, in one process, interleaved.

`rows(quick, repeats)` yields one dict a row for benchmarks/run.py; `python benchmarks/loading.py` prints them.
ours_s is a first `load` (a binary copy is removed before each, its writing is included); peer_s ends with the peer's
numbers as an array. Both are CPU seconds of this process (all are single-threaded), which other work on the machine
disturbs least; medians. A row holds only if our float32 equals the peer's float64 rounded once, bit for bit.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from uea_loader import load  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"   # the archive's .ts files, where this machine has them
BOUND = "bound by numpy's passes over the bytes (NOTES.md); "
MUST = 5


def _peers():
    """{peer: (suffixes it reads, function path -> X (N, D, T), or None where it is not installed)}"""
    found = {}
    try:
        from scipy.io import arff
        found["scipy"] = ((".arff",), lambda p: np.array([[list(row) for row in r[0]] for r in arff.loadarff(p)[0]]))
    except ImportError:
        found["scipy"] = None
    try:
        from aeon.datasets import load_from_arff_file, load_from_ts_file
        aeon = {".ts": load_from_ts_file, ".arff": load_from_arff_file}
        found["aeon"] = ((".arff", ".ts"), lambda p: aeon[Path(p).suffix](p)[0])
    except ImportError:
        found["aeon"] = None
    try:
        from sktime.datasets import load_from_arff_to_dataframe, load_from_tsfile_to_dataframe
        from sktime.datatypes import convert

        def sktime(p):
            X = (load_from_tsfile_to_dataframe if p.endswith(".ts") else load_from_arff_to_dataframe)(p)[0]
            return convert(X, "nested_univ", "numpy3D")
        found["sktime"] = ((".arff", ".ts"), sktime)
    except ImportError:
        found["sktime"] = None
    try:
        from tslearn.utils.utils import _load_arff_uea   # what UCR_UEA_datasets.load_dataset calls after its download
        found["tslearn"] = ((".arff",), lambda p: _load_arff_uea(p)[0].transpose(0, 2, 1))
    except ImportError:
        found["tslearn"] = None
    return found


def write_made(path, N, T, D, seed=0):
    """A .ts or .arff file of made data in PEMS-SF's style: occupancy rates in [0, 1), six decimals at most."""
    rng = np.random.default_rng(seed)
    relational = path.suffix == ".arff"
    with open(path, "w") as f:
        if relational:
            steps = "".join(f"@attribute t{t} numeric\n" for t in range(T))
            f.write("@relation made\n@attribute bag relational\n" + steps + "@end bag\n@attribute class {1,2}\n@data\n")
        else:
            f.write("@problemName made\n@timeStamps false\n@missing false\n@univariate false\n"
                    f"@dimensions {D}\n@equalLength true\n@seriesLength {T}\n@classLabel true 1 2\n@data\n")
        for i in range(N):
            x = np.round(rng.beta(1, 12, (D, T)), 6)
            text = ("\\n" if relational else ":").join(",".join(map(repr, row)) for row in x.tolist())
            f.write(f"'{text}',{i % 2 + 1}\n" if relational else f"{text}:{i % 2 + 1}\n")
    return path


def _files(quick, folder):
    """(what, path, repeats cap) of each file to be read."""
    basic = ROOT / "data" / "BasicMotions" / "BasicMotions_TRAIN.arff"
    yield "BasicMotions .arff", basic, None
    for name, shape in (("BasicMotions", (40, 100, 6)), ("ArticularyWordRecognition", (300, 144, 9))):
        path = SHARED / name / f"{name}_TEST.ts"
        if path.is_file():
            yield f"{name} .ts", path, None
        else:
            yield f"made, shape of {name}, .ts", write_made(folder / f"{name}_TEST.ts", *shape), None
    shape = (20, 144, 963) if quick else (173, 144, 963)
    for ext in (".ts", ".arff"):
        (folder / "made").mkdir(exist_ok=True)
        yield f"made, {'x'.join(map(str, shape))}{' (PEMS-SF)' * (not quick)}, {ext}", write_made(
            folder / "made" / f"made_TEST{ext}", *shape), 1


def _seconds(call):
    start = time.process_time()
    out = call()
    return time.process_time() - start, out


def _compare(what, path, suffix, repeats, slow, cache):
    """Rows of one file: each peer, then our second load."""
    peers = _peers()
    if os.path.getsize(path) < 1 << 20:
        repeats *= 5   # milliseconds: more of them cost nothing and steady the median
    first, second, theirs, equal = [], [], {}, {}
    for round_ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        seconds, ours = _seconds(lambda: load(path))
        first.append(seconds)
        second.append(_seconds(lambda: load(path))[0])
        for peer, entry in peers.items():
            if entry is None or suffix not in entry[0] or slow and round_ and peer != "aeon":
                continue   # on the large files the slower peers are timed once
            try:
                seconds, X = _seconds(lambda: entry[1](str(path)))
            except Exception as e:
                equal[peer] = f"it fails on this file: {type(e).__name__}: {str(e)[:80]}"
                continue
            theirs.setdefault(peer, []).append(seconds)
            X = np.asarray(X).astype(np.float32).transpose(0, 2, 1)   # (N, D, T) -> (N, T, D)
            equal[peer] = np.array_equal(X, ours.X, equal_nan=True)
    ours_s = statistics.median(first)
    for peer, entry in peers.items():
        row = dict(what=f"read {what}", ours_s=ours_s, peer=peer, peer_s=None, ratio=None, must=MUST, holds=None)
        if entry is None:
            yield row | dict(note=f"{peer} is not installed")
        elif isinstance(equal.get(peer), str):
            yield row | dict(note=equal[peer])
        elif peer in theirs:
            peer_s = statistics.median(theirs[peer])
            ratio = peer_s / ours_s
            yield row | dict(peer_s=peer_s, ratio=ratio, holds=equal[peer] and ratio >= MUST, note=BOUND * (ratio < MUST) + (
                "equal to the bit as float32" if equal[peer] else "NOT EQUAL") + f"; {len(theirs[peer])} repeats")
    if theirs and os.path.getsize(path) >= 1 << 20:
        peer = min(theirs, key=lambda p: statistics.median(theirs[p]))
        peer_s, ours_s = statistics.median(theirs[peer]), statistics.median(second)
        yield dict(what=f"read {what}, second time", ours_s=ours_s, peer=peer, peer_s=peer_s, ratio=peer_s / ours_s,
                   must=MUST, holds=peer_s / ours_s >= MUST, note=f"from the binary copy, {ours_s * 1e3:.0f} ms")


def rows(quick=False, repeats=5):
    """One dict a row: what, ours_s, peer, peer_s, ratio = peer_s / ours_s, must, holds, note."""
    before = os.environ.get("EMTC_DATA")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMTC_DATA"] = str(Path(folder) / "cache")
        try:
            for what, path, slow in _files(quick, Path(folder)):
                yield from _compare(what, path, path.suffix, repeats, slow, Path(folder) / "cache")
        finally:
            os.environ.pop("EMTC_DATA")
            if before is not None:
                os.environ["EMTC_DATA"] = before


if __name__ == "__main__":
    from run import show_part
    show_part(rows, __doc__)
