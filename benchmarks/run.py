"""All benchmarks: `python benchmarks/run.py [--quick] [part ...]`.

Each row is printed, and merged into benchmarks/results.json, as soon as it is measured: what,
value, note, with part, date, cores, load of the machine and versions. One thread. scikit-learn and
aeon (requirements.txt) are the peers; a part without its peer is left out. --quick takes small
sizes, whose times mean nothing, writes nothing, and ends with status 1 if a result is wrong.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of this and of the processes that it starts; before numpy
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import clustering  # noqa: E402
import loading  # noqa: E402
import scaling  # noqa: E402

from support.files import write, write_json  # noqa: E402

PARTS = {
    "long": scaling.long,
    "many": scaling.many,
    "keys": scaling.keys,
    "processes": scaling.processes,
    "kmeans": clustering.rows,
    "reading": loading.rows,
}
RESULTS = HERE / "results.json"


def surroundings():
    """What a number depends on."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "scikit-learn", "aeon"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    date, load = datetime.date.today().isoformat(), round(os.getloadavg()[0], 1)
    return dict(date=date, cores=os.cpu_count(), load=load, versions=versions)


def merge(row):
    """Put the row into results.json, in place of an older one of the same part and name, and all
    rows of its part into RESULTS.md."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    key = row["part"], row["what"]
    rows = [r for r in rows if (r["part"], r["what"]) != key] + [row]
    write_json(RESULTS, rows)
    page, lines = RESULTS.with_name("RESULTS.md"), ["what | value | | measured", "--|--|--|--"]
    for r in rows:
        if r["part"] == row["part"]:
            note = r["note"].replace("|", "\\|")  # otherwise it would end the table's cell
            lines.append(f"{r['what']} | {value(r)} | {note} | {r['date']}, load {r['load']}")
    begin, end = f"<!--rows {row['part']}-->\n", "<!--end-->"
    before, after = page.read_text(encoding="utf-8").split(begin)  # once, or it is our mistake
    after = after[after.index(end) :]
    write(page, before + begin + "\n".join(lines) + "\n" + after)


def value(row):
    return "-" if row["value"] is None else f"{row['value']:.3g}"


def line(row):
    wrong = "" if row.get("ok", True) else "  WRONG"
    return f"{row['what']:48s} {value(row):>9s}  {row['note']}{wrong}"


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="small sizes, correctness only")
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wrong = False
    for part in args.parts or PARTS:
        for row in PARTS[part](args.quick):
            print(line(row), flush=True)
            wrong |= not row.get("ok", True)
            if not args.quick:
                merge({"part": part} | row | surroundings())
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
