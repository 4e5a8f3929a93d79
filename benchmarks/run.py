"""All speed benchmarks as one table, peer by peer: `python benchmarks/run.py [--quick] [--only clustering]`.

ratio = the peer's seconds / ours, so above 1 we are faster; both come from the same run, medians of interleaved
repeats. `must` is the ratio that issue and README promise, `holds` whether it was reached and the results agreed. A peer
that is not installed (benchmarks/requirements.txt) or data that is not there gives a row that says so.

Without --quick each row is merged into benchmarks/results.json as soon as it is measured, with seconds, versions,
number of cores and date; rows of other parts stay. --quick takes small sizes, checks that all results agree with the
peers', writes nothing, and ends with status 1 if one does not.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("clustering", "loading", "training")
RESULTS = HERE / "results.json"
PACKAGES = ("torch", "numpy", "scikit-learn", "scipy", "kmeans-pytorch", "fast-pytorch-kmeans", "torch-kmeans", "aeon",
            "sktime", "tslearn")


def surroundings():
    """What a number depends on: date, machine, versions."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return dict(date=datetime.date.today().isoformat(), machine=platform.machine(), cores=os.cpu_count(), versions=versions)


def merge(stored, part, row):
    """stored with this row in place of an older one of the same part, what and peer; order kept, input unchanged."""
    row, key = {"part": part, **row}, (part, row["what"], row["peer"])
    place = {(r["part"], r["what"], r["peer"]): i for i, r in enumerate(stored)}.get(key)
    return stored + [row] if place is None else stored[:place] + [row] + stored[place + 1:]


def write(path, stored):
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps({"rows": stored}, indent=1, default=lambda v: v.item()) + "\n")
    os.replace(partial, path)


def part_rows(part, quick, repeats):
    """The part's rows; a part that is not there, or breaks off, ends with a row that says so."""
    row = dict(what=part, ours_s=None, peer="", peer_s=None, ratio=None, must=None, holds=None)
    try:
        yield from importlib.import_module(part).rows(quick=quick, repeats=repeats)
    except ModuleNotFoundError as e:
        yield row | dict(wrong=e.name != part, note=f"left out: no module {e.name}")
    except Exception as e:  # one broken part must not cost the others' rows
        yield row | dict(holds=False, wrong=True, note=f"broke off: {type(e).__name__}: {str(e)[:200]}")


def line(row):
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}x"
    must = "" if row["must"] is None else str(row["must"])
    holds = {True: "yes", False: "NO", None: ""}[row["holds"]]
    return f"{row['what']:50s} {row['peer']:20s} {ratio:>8s} {must:>8s} {holds:>5s}  {row['note']}"


def show_part(rows, doc):
    """The command line of one part: its rows in the same form, nothing written."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for row in rows(args.quick, args.repeats):
        print(line(row), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, results only, nothing written")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only (may be repeated)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats of each measurement")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {args.repeats}")
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    stored = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    where, wrong = surroundings(), False
    print(f"{'what':50s} {'peer':20s} {'ratio':>8s} {'must':>8s} {'holds':>5s}")
    for part in args.only or PARTS:
        seen = set()
        for row in part_rows(part, args.quick, args.repeats):
            wrong |= row.pop("wrong", False)
            seen.add((row["what"], row["peer"]))
            print(line(row), flush=True)
            if not args.quick:
                stored = merge(stored, part, row | where)
                write(RESULTS, stored)
        if not args.quick:
            write(RESULTS, [r for r in stored if r["part"] != part or (r["what"], r["peer"]) in seen])
            stored = json.loads(RESULTS.read_text())["rows"]
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
