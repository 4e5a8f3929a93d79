"""Run every experiment in turn, each in a process of its own; options are passed on to each.

    python experiments/run_all.py --quick                 # a first look at all of them
    python experiments/run_all.py --data BasicMotions     # resumes each where it stopped

Goes on after a failure, names each script that failed or is missing at the end, and then exits with 1.
"""

import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = ("table2", "significance", "ablation", "loss_ablation", "masking", "convergence", "efficiency",
           "visualize", "masks", "threshold", "stability", "protocol", "archive_check", "tau", "views")


def run_all(folder, options, scripts=SCRIPTS):
    """{script: (status, seconds)}; status is the exit status, or None where folder/<script>.py is not there."""
    results = {}
    for number, name in enumerate(scripts, 1):
        path, start = folder / f"{name}.py", time.perf_counter()
        print(f"\n===== [{number}/{len(scripts)}] {name} =====", flush=True)
        if path.exists():
            status = subprocess.run([sys.executable, str(path), *options], check=False).returncode
        else:
            status = None
            print(f"missing: {path}", flush=True)
        results[name] = (status, time.perf_counter() - start)
        if status == 130:  # Ctrl-C: the user wants all of it to stop
            break
    return results


def main(argv=None):
    """Run, print one line a script, return 0 only if each one ran and succeeded."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    try:
        results = run_all(Path(__file__).resolve().parent, argv)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print("\n===== summary =====")
    for name, (status, seconds) in results.items():
        word = {0: "ok", None: "MISSING"}.get(status, f"FAILED (exit {status})")
        print(f"{name:<14} {word:<16} {seconds:6.1f} s")
    return 0 if all(status == 0 for status, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
