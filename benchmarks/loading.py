"""Reading against aeon, the fastest peer: the same files, one process, interleaved, CPU seconds.

First: without the binary copy, which is written in that time. Copy: from it, for files over 1 MB.
ok: our float32 equals aeon's float64 rounded once, to the bit. Above 1 we are faster.
"""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"  # the archive's .ts files, where this machine has them


def write_made(path, N, T, D):
    """A .ts file of made data in PEMS-SF's style: rates in [0, 1), six decimals at most."""
    rng = np.random.default_rng(0)
    with open(path, "w") as f:
        f.write(
            f"@problemName made\n@timeStamps false\n@missing false\n@univariate false\n"
            f"@dimensions {D}\n@equalLength true\n@seriesLength {T}\n@classLabel true 1 2\n@data\n"
        )
        for i in range(N):
            x = np.round(rng.beta(1, 12, (D, T)), 6).tolist()
            f.write(":".join(",".join(map(repr, row)) for row in x) + f":{i % 2 + 1}\n")
    return path


def files(quick, folder):
    """What, path and number of repeats of each file."""
    yield "BasicMotions .arff", ROOT / "data/BasicMotions/BasicMotions_TRAIN.arff", 9
    yield "RacketSports .ts", ROOT / "data/RacketSports/RacketSports_TRAIN.ts", 9
    path = SHARED / "ArticularyWordRecognition/ArticularyWordRecognition_TEST.ts"
    if path.is_file() and not quick:
        yield "ArticularyWordRecognition .ts, 3 MB", path, 5
    shape = (4, 144, 963) if quick else (30, 144, 963)
    made = write_made(folder / "made_TEST.ts", *shape)
    size = made.stat().st_size / 1e6
    yield f"made, {'x'.join(map(str, shape))} .ts, {size:.0f} MB", made, 3


def timed(call):
    start = time.process_time()
    out = call()
    return time.process_time() - start, out


def rows(quick):
    try:
        from aeon.datasets import load_from_arff_file, load_from_ts_file
    except ImportError:
        yield dict(what="reading", value=None, note="left out: aeon is not installed")
        return
    from uea_loader import COPY_FROM, load

    readers = {".ts": load_from_ts_file, ".arff": load_from_arff_file}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMTC_DATA"] = str(Path(folder) / "cache")
        for what, path, repeats in files(quick, Path(folder)):
            seconds = {"first": [], "copy": [], "aeon": []}
            for _ in range(repeats):
                shutil.rmtree(os.environ["EMTC_DATA"], ignore_errors=True)
                for how in ("first", "copy"):
                    took, ours = timed(lambda: load(path))
                    seconds[how].append(took)
                took, X = timed(lambda: readers[path.suffix](str(path))[0])
                seconds["aeon"].append(took)
            equal = np.array_equal(X.astype(np.float32).transpose(0, 2, 1), ours.X, equal_nan=True)
            median = {how: statistics.median(values) for how, values in seconds.items()}
            for how in ("first", "copy")[: 1 + (path.stat().st_size >= COPY_FROM)]:
                note = f"times aeon's speed; {median[how] * 1e3:.3g} ms; {repeats} repeats"
                note += "" if equal else "; NOT EQUAL to aeon's values"
                value = median["aeon"] / median[how]
                yield dict(what=f"reading {what}, {how}", value=value, note=note, ok=equal)
