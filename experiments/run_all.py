"""Everything measured: run all experiments; are results, numbers, figures of this code?

    python experiments/run_all.py --jobs 2        # all of it; resumes each where it stopped
    python experiments/run_all.py --quick         # a first look at each, in results/quick
    python experiments/run_all.py --time          # how long it takes, by the stored runs
    python experiments/run_all.py --readme        # write the stored numbers into all .md files
    python experiments/run_all.py --check         # status 1, and a line for all that is out of date

Other options are passed on to each script. In a text, `.803<!--=study_masking
average/evolving/ACC/mean-->` (in one line) is a number of results/study_masking.json; what stands
between `<!--table table2 0-->` and `<!--/table-->` is the first table that table2.py printed.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import store
import study
import tables

HERE = Path(__file__).resolve().parent
STUDIES = tuple(f"study {name}" for name in study.STUDIES)
SCRIPTS = ("planted", "gains", *STUDIES, "table2", "readings", "significance", "visualize",
           "related", "nc_vqvae")  # fmt: skip
NUMBER = re.compile(r"([-+]?\d*\.?\d+)(\s*%?)<!--=(\S+) (.+?)-->")
TABLE = re.compile(r"(<!--table (\S+) (\d+)-->\n)(.*?)(<!--/table-->)", re.DOTALL)


def run_all(folder, options, scripts=SCRIPTS):
    """{script: (exit status, seconds)}; a script that fails does not stop the others."""
    results = {}
    for number, name in enumerate(scripts, 1):
        (file, *more), start = name.split(), time.perf_counter()
        print(f"\n===== [{number}/{len(scripts)}] {name} =====", flush=True)
        command = [sys.executable, str(folder / f"{file}.py"), *more, *options]
        status = subprocess.run(command, check=False).returncode
        results[name] = (status, time.perf_counter() - start)
        if status == 130:  # Ctrl-C: the user wants all of it to stop
            break
    return results


def seconds_of(folder):
    """{file: seconds of its stored runs}, of what was run and not taken from another study."""
    read = {path.stem: tables.read_json(path) for path in sorted(folder.glob("*.json"))}
    return {n: sum(r["seconds"] for r in c["runs"]) for n, c in read.items() if "modules" in c}


def value(folder, name, path):
    """The number at path "average/evolving/ACC/mean" of folder/<name>.json."""
    at = tables.read_json(folder / f"{name}.json")
    for key in path.split("/"):
        at = at[int(key)] if isinstance(at, list) else at[key]
    return float(at)


def written(old, number, percent):
    """The number as text, in the form of `old`: its decimals, its sign, its leading 0 or none."""
    decimals = len(old.partition(".")[2])
    sign = "+" if old[0] == "+" else ""
    text = f"{number * (100 if percent else 1):{sign}.{decimals}f}"
    return re.sub(r"^([-+]?)0\.", r"\1.", text) if re.match(r"[-+]?\.", old) else text


def filled(text, folder):
    """`text` with its numbers and tables as they are in folder."""

    def number(found):
        old, percent, name, path = found.groups()
        new = written(old, value(folder, name, path), "%" in percent)
        return f"{new}{percent}<!--={name} {path}-->"

    def table(found):
        start, name, k, _, end = found.groups()
        return f"{start}{tables.read_json(folder / f'{name}.json')['text'][int(k)]}\n{end}"

    return TABLE.sub(table, NUMBER.sub(number, text))


def texts(root):
    """The project's .md files, but not what lies in hidden folders."""
    return [p for p in sorted(root.rglob("*.md")) if "/." not in f"/{p.relative_to(root)}"]


def outdated(root):
    """One line for each record, figure and text under root that is older than what made it."""
    lines, folder = [], root / "results"
    for path in sorted(set(folder.rglob("*.json")) - set(folder.glob("quick/**/*.json"))):
        content, name = tables.read_json(path), path.relative_to(folder)
        if "modules" in content:  # written by Store
            now = store.code_hash(*content["modules"])
            old, n = sum(r["code"] != now for r in content["runs"]), len(content["runs"])
            if old:
                lines.append(f"{name}: {old} of {n} records were made by other code")
        source = content.get("read_from")
        if source and tables.file_hash(path.parent / source) != content["read_hash"]:
            lines.append(f"{name}: {source} has changed since")
        figure = root / "figures" / name.with_suffix(".png")
        ours = figure.exists() and ("modules" in content or source)
        if ours and tables.file_hash(path).encode() not in figure.read_bytes():
            lines.append(f"{figure.name}: not made from this {name}")
    for path in texts(root):
        text = path.read_text(encoding="utf-8")
        try:
            if filled(text, folder) != text:
                lines.append(f"{path.relative_to(root)}: numbers differ from results/; --readme")
        except (LookupError, OSError, TypeError, ValueError) as error:
            lines.append(f"{path.relative_to(root)}: a number without its record ({error})")
    return lines


def main(argv=None):
    """Run all, or check, or say the time; returns the exit status."""
    argv, results = sys.argv[1:] if argv is None else argv, store.ROOT / "results"
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    if "--check" in argv:
        lines = outdated(store.ROOT)
        print("\n".join(lines) or "results, figures and texts belong to this code")
        return 1 if lines else 0
    if "--readme" in argv:
        for path in texts(store.ROOT):
            text = path.read_text(encoding="utf-8")
            if filled(text, results) != text:
                path.write_text(filled(text, results), encoding="utf-8")
                print(f"numbers renewed: {path}")
        return 0
    took = seconds_of(results)
    total = sum(took.values()) / 60
    print(f"all of it: {total:.0f} minutes of one core, by the stored runs; --quick: some minutes")
    if "--time" in argv:
        print("\n".join(f"{name:<22} {seconds / 60:6.1f} min" for name, seconds in took.items()))
        return 0
    done = run_all(HERE, argv)
    print("\n===== summary =====")
    for name, (status, seconds) in done.items():
        print(f"{name:<20} {f'FAILED (exit {status})' if status else 'ok':<16} {seconds:6.1f} s")
    return 1 if any(status for status, _ in done.values()) else 0


if __name__ == "__main__":
    sys.exit(store.run_main(main))
