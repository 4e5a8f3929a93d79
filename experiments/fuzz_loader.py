"""The loader under seeded mutations of real files: each must load to a sound array or raise DataError, nothing else.

    python experiments/fuzz_loader.py                      # 12 000 mutations, writes results/fuzz_loader.json
    python experiments/fuzz_loader.py --quick              # 600
    python experiments/fuzz_loader.py --files A.ts B.arff  # of these files too

The seeds are the bundled BasicMotions (`.arff`), the same numbers as `.ts`, a cut with unequal lengths and missing
values, and a univariate `.arff`. Mutation k of a run is a function of (seed, k) alone.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from uea_loader import DataError, load  # noqa: E402

JUNK = [b"?", b"NaN", b"inf", b"1e999", b"-", b".", b"e", b"\0", b"\xff", b"'", b'"', b"\\n", b"\\", b",", b":", b"\n",
        b"\r\n", b" ", b"\t", b"@data\n", b"@end", b"{", b"1_0", b"9" * 400, b"," * 400, b":" * 400, b"1," * 5000,
        b"1:" * 5000, b"@attribute a relational\n"]


def seeds(extra=()):
    """{file name: bytes}: `.arff` and `.ts`, multivariate and univariate, with missing values and unequal lengths."""
    arff = (ROOT / "data" / "BasicMotions" / "BasicMotions_TRAIN.arff").read_bytes()
    head, body = arff.split(b"@data\n")
    rows = [line.rpartition(b",") for line in body.splitlines()]
    ts_head = (b"@problemName B\n@timeStamps false\n@univariate false\n"
               b"@classLabel true Standing Running Walking Badminton\n@data\n")
    bags = [bag.strip(b"'").replace(b"\\n", b":") for bag, _, _ in rows]
    ts = ts_head + b"\n".join(bag + b":" + label for bag, (_, _, label) in zip(bags, rows))
    short = [b":".join(b",".join(c.split(b",")[:10 + i]) for c in bag.split(b":")) for i, bag in enumerate(bags)]
    short = [s.replace(b",0.", b",?,0.", 3) for s in short]
    ragged = ts_head + b"\n".join(s + b":" + label for s, (_, _, label) in zip(short, rows))
    flat = (b"@relation u\n" + b"".join(b"@attribute t%d numeric\n" % t for t in range(100))
            + b"@attribute class {Standing,Running,Walking,Badminton}\n@data\n"
            + b"\n".join(bag.split(b":")[0] + b"," + label for bag, (_, _, label) in zip(bags, rows)))
    return {"BasicMotions.arff": arff, "BasicMotions.ts": ts, "ragged.ts": ragged, "univariate.arff": flat,
            "head.arff": head + b"@data\n" + b"\n".join(body.splitlines()[:3]),
            **{Path(p).name: Path(p).read_bytes() for p in extra}}


def _place(rng, data):
    """A position: anywhere, or (every other time) at a line's edge or in the header, where structure lives."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(min(len(data), 1500))
    if kind == 1:
        return max(data.find(b"\n", rng.randrange(len(data))) - rng.randrange(12), 0)
    return rng.randrange(len(data))


def flip(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 10, 100))):
        out[_place(rng, data)] = rng.randrange(256)
    return bytes(out)


def junk(rng, data):
    for _ in range(rng.choice((1, 1, 3))):
        at = _place(rng, data)
        data = data[:at] + rng.choice(JUNK) + data[at + rng.choice((0, 1, 5)):]
    return data


def cut(rng, data):
    a, b = sorted((_place(rng, data), _place(rng, data)))
    return rng.choice((data[:a], data[b:], data[:a] + data[b:], data[:a] + data[b:b + 300] + data[a:]))


def lines(rng, data):
    rows = data.split(b"\n")
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    action = rng.randrange(5)
    if action == 0:
        del rows[i:i + rng.choice((1, 1, 5))]
    elif action == 1:
        rows.insert(j, rows[i])
    elif action == 2:
        rng.shuffle(rows)
    elif action == 3:
        rows[i], rows[j] = rows[j], rows[i]
    else:
        rows[i] = rows[i][:rng.randrange(len(rows[i]) + 1)]
    return b"\n".join(rows)


def encode(rng, data):
    return rng.choice((lambda: data.decode("latin-1").encode("utf-16"), lambda: b"\xef\xbb\xbf" + data,
                       lambda: data.replace(b"\n", b"\r\n"), lambda: data.replace(b"\n", b"\r"),
                       lambda: data.replace(b",", b", "), lambda: data.replace(b",", b"\t,"), lambda: data.upper(),
                       lambda: data.replace(rng.choice((b",", b":", b".", b"'", b"\n")), rng.choice(JUNK), 200),
                       lambda: bytes(rng.randrange(256) for _ in range(2000))))()


MUTATIONS = (flip, junk, cut, lines, encode)


def mutate(rng, data):
    names = [rng.choice(MUTATIONS) for _ in range(rng.choice((1, 1, 2, 3)))]
    for mutation in names:
        if data:
            data = mutation(rng, data)
    return "+".join(m.__name__ for m in names), data


def outcome(path):
    """What `load` makes of `path`: a short name; only the first four are allowed."""
    try:
        d = load(path)
    except DataError as e:
        return "refused" if "\n" not in str(e) and len(str(e)) < 1000 else "error of more than one line"
    except Exception as e:
        return f"{type(e).__name__}: {str(e)[:100]}"
    X, y = d.X, d.y
    sound = (isinstance(X, np.ndarray) and X.dtype == np.float32 and X.ndim == 3 and X.size > 0
             and not np.isinf(X).any() and not np.isnan(X).all()
             and (y is None or y.dtype == np.int64 and y.shape == X.shape[:1] and {*y} <= {*range(len(d.classes))}))
    if not sound:
        return "unsound array"
    return "loaded without labels" if y is None else "loaded, some values missing" if np.isnan(X).any() else "loaded"


ALLOWED = ("refused", "loaded", "loaded, some values missing", "loaded without labels")


def campaign(n, seed=0, extra=(), memory=True):
    """n mutations -> the report as a dict."""
    files = seeds(extra)
    outcomes, kinds, bad, slowest, highest = Counter(), {}, [], (0.0, -1), (0.0, -1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMTC_DATA"] = folder   # no cache of the user's is touched
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
            if outcome(Path(folder) / name) not in ALLOWED[1:]:
                bad.append({"k": None, "file": name, "mutation": "none", "outcome": outcome(Path(folder) / name)})
        for k in range(n):
            rng = random.Random(f"{seed}/{k}")
            name = rng.choice(list(files))
            kind, data = mutate(rng, files[name])
            path = Path(folder) / f"mutant{Path(name).suffix}"
            path.write_bytes(data)
            if memory:
                tracemalloc.start()
            start = time.perf_counter()
            result = outcome(path)
            seconds = time.perf_counter() - start
            peak = tracemalloc.get_traced_memory()[1] / 2**20 if memory else 0.0
            if memory:
                tracemalloc.stop()
            outcomes[result] += 1
            kinds.setdefault(kind.split("+")[0], Counter())["refused" if result == "refused" else "loaded"] += 1
            slowest, highest = max(slowest, (seconds, k)), max(highest, (peak, k))
            if result not in ALLOWED:
                bad.append({"k": k, "file": name, "mutation": kind, "outcome": result})
    return {"mutations": n, "seed": seed, "files": {f: len(d) for f, d in files.items()}, "outcomes": dict(outcomes),
            "by_first_mutation": kinds, "not_allowed": bad, "max_seconds": round(slowest[0], 3), "slowest": slowest[1],
            "peak_traced_mb": round(highest[0], 1), "highest": highest[1],
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="600 mutations, nothing written")
    parser.add_argument("--n", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="*", default=[], help="more seed files")
    args = parser.parse_args()
    report = campaign(600 if args.quick else args.n, args.seed, args.files)
    text = json.dumps(report, indent=1)
    print(text)
    if not args.quick:
        (ROOT / "results").mkdir(exist_ok=True)
        (ROOT / "results" / "fuzz_loader.json").write_text(text + "\n")
    sys.exit(1 if report["not_allowed"] else 0)
