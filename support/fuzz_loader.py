"""The loader under seeded mutations of real files: each must load soundly or raise DataError.

    python -m support.fuzz_loader              # 12 000 mutations, writes results/fuzz_loader.json
    python -m support.fuzz_loader --n 600      # fewer, nothing written

The seeds are the bundled BasicMotions (`.arff`), the same numbers as `.ts`, with unequal lengths
and missing values, as a univariate `.arff`, as `.csv` and as `.npz`. Mutation k is a function of
(seed, k).
"""

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from uea_loader import DataError, load

ROOT = Path(__file__).resolve().parent.parent
HEAD = b"@problemName B\n@timeStamps false\n@univariate false\n@classLabel true Standing Running"
JUNK = (
    "? NaN inf 1e999 - . e \0 \xff ' \" \\n \\ , : ; \n \r\n \t @data\n @end { 1_0 id,id, "
    f"{'9' * 400} {',' * 400} {':' * 400} {'1,' * 5000} {'1:' * 5000}"
)
JUNK = [word.encode("latin-1") for word in JUNK.split(" ")] + [b"@attribute a relational\n"]
ALLOWED = ("refused", "loaded", "loaded, some values missing", "loaded without labels")


def seeds():
    """{file name: bytes}"""
    arff = (ROOT / "data" / "BasicMotions" / "BasicMotions_TRAIN.arff").read_bytes()
    rows = [line.rpartition(b",") for line in arff.split(b"@data\n")[1].splitlines()]
    bags = [bag.strip(b"'").split(b"\\n") for bag, _, _ in rows]
    labels = [label for _, _, label in rows]
    head = HEAD + b" Walking Badminton\n@data\n"
    ragged = [[b",".join(v.split(b",")[: 10 + i]) for v in bag] for i, bag in enumerate(bags)]
    ragged = [[v.replace(b",0.", b",?,0.", 3) for v in bag] for bag in ragged]
    flat = b"".join(b"@attribute t%d numeric\n" % t for t in range(100))
    flat += b"@attribute class {Standing,Running,Walking,Badminton}\n@data\n"
    table = b"id,time,class,x,y\n"
    for i, (x, y, *_) in enumerate(bags):
        steps = enumerate(zip(x.split(b","), y.split(b",")[: 20 + i]))
        table += b"".join(b"%d,%d,%s,%s,%s\n" % (i, t, labels[i], *v) for t, v in steps)
    npz = io.BytesIO()
    X = np.array([[v.split(b",") for v in bag] for bag in bags]).astype(float)
    np.savez_compressed(npz, X=X[:5].transpose(0, 2, 1), y=np.array(labels[:5]).astype(str))
    return {
        "BasicMotions.arff": arff,
        "short.arff": b"\n".join(arff.split(b"\n")[:150]),
        "BasicMotions.ts": head + b"\n".join(b":".join([*b, c]) for b, c in zip(bags, labels)),
        "ragged.ts": head + b"\n".join(b":".join([*b, c]) for b, c in zip(ragged, labels)),
        "univariate.arff": flat + b"\n".join(b[0] + b"," + c for b, c in zip(bags, labels)),
        "long.csv": table,
        "small.npz": npz.getvalue(),
    }


def _place(rng, data):
    """A position: anywhere, or every other time in the header or near the end of a line."""
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
    at = _place(rng, data)
    return data[:at] + rng.choice(JUNK) + data[at + rng.choice((0, 1, 5)) :]


def cut(rng, data):
    a, b = sorted((_place(rng, data), _place(rng, data)))
    return rng.choice((data[:a], data[b:], data[:a] + data[b:], data[:b] + data[a:]))


def lines(rng, data):
    rows = data.split(b"\n")
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    rows[i], rows[j] = rng.choice(((rows[j], rows[i]), (rows[j], rows[j]), (rows[i][:j], rows[j])))
    return b"\n".join(rows)


def encode(rng, data):
    old, new = rng.choice((b",", b":", b".", b"'", b"\n")), rng.choice(JUNK)
    return rng.choice(
        (
            lambda: data.decode("latin-1").encode("utf-16"),
            lambda: b"\xef\xbb\xbf" + data.replace(b"\n", rng.choice((b"\r\n", b"\r"))),
            lambda: data.replace(b",", rng.choice((b", ", b"\t,", b";"))),
            lambda: data.upper(),
            lambda: data.replace(old, new, 200),
        )
    )()


def outcome(path):
    """What `load` makes of `path`: one of ALLOWED, or what is wrong with it."""
    try:
        X, y, classes, *_ = load(path)
    except DataError as e:
        return "refused" if "\n" not in str(e) and len(str(e)) < 1000 else "a long error"
    except Exception as e:  # noqa: BLE001 (what is looked for)
        return f"{type(e).__name__}: {str(e)[:100]}"
    sound = X.dtype == np.float32 and X.ndim == 3 and X.size and not np.isnan(X).all()
    sound = sound and not np.isinf(X).any()
    if y is not None:
        sound = sound and y.dtype == np.int64 and y.shape == X.shape[:1]
        sound = sound and {*y} <= {*range(len(classes))}
    if not sound:
        return "unsound array"
    return ALLOWED[3] if y is None else ALLOWED[2] if np.isnan(X).any() else ALLOWED[1]


def campaign(n, seed=0):
    """n mutations -> the report as a dict."""
    files, outcomes, bad, slowest = seeds(), Counter(), [], (0.0, 0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EMTC_DATA"] = folder  # no cache of the user's is touched
        for k in range(-len(files), n):  # the files as they are, then mutated
            rng = random.Random(f"{seed}/{k}")
            name = rng.choice(list(files)) if k >= 0 else list(files)[k]
            data = files[name]
            for mutation in rng.choices(
                (flip, junk, cut, lines, encode), k=rng.choice((1, 1, 2, 3))
            ):
                data = mutation(rng, data) if k >= 0 and data else data
            path = Path(folder, f"mutant{Path(name).suffix}")
            path.write_bytes(data)
            start = time.perf_counter()
            result = outcome(path)
            slowest = max(slowest, (round(time.perf_counter() - start, 3), k))
            outcomes[f"{path.suffix} {result}"] += 1
            if result not in ALLOWED[k < 0 :]:
                bad.append({"k": k, "file": name, "outcome": result})
    report = {"mutations": n, "seed": seed, "outcomes": dict(sorted(outcomes.items()))}
    return report | {"not_allowed": bad, "max_seconds_and_k": slowest}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = campaign(args.n, args.seed)
    text = json.dumps(report, indent=1)
    print(text)
    if args.n == 12_000:
        (ROOT / "results" / "fuzz_loader.json").write_text(text + "\n")
    sys.exit(1 if report["not_allowed"] else 0)
