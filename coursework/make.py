"""Cut a hand-out from the code: a copy without the bodies of the functions that students write.

python coursework/make.py --out ../hand-out
python coursework/make.py --out ../hand-out --equations 3 5 10-12 ari

Signatures and docstrings stay. What the teacher alone should have is left out: answers.md here,
this file, the tests of the coursework, and all of experiments/, related/ and benchmarks/.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tasks import HELP, chosen, tasks

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("emtc.py", "kmeans.py", "metrics.py", "uea_loader.py", "train.py", "test_emtc.py",
          "support", "data", "pyproject.toml", "requirements.txt", "requirements-dev.txt",
          "README.md", "LICENSE", ".gitignore")  # fmt: skip
COURSEWORK = ("README.md", "tasks.py", "walkthrough.ipynb")
CHECKS = ("checks.py", "grade.py")


def blank(source, cut):
    """`source` with the body of each of the tasks `cut` replaced by a NotImplementedError."""
    lines = source.splitlines(keepends=True)
    for task in sorted(cut, key=lambda t: -t.first):  # from the end: lines keep their numbers
        indent = "    " * (1 + task.function.count("."))
        lines[task.first - 1 : task.last] = [f'{indent}raise NotImplementedError("{task.name}")\n']
    return "".join(lines)


def make(out, words=(), checks=True, root=ROOT):
    """Write the hand-out to the new folder `out` -> its tasks; ValueError where that cannot be."""
    out = Path(out).absolute()
    root = root.resolve()
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} is there already; name a new folder")
    if root in [out.resolve(), *out.resolve().parents]:
        raise ValueError(f"{out} lies in the repository; name a folder outside of it")
    cut = chosen(tasks(root), words)
    partial = out.with_name(out.name + ".tmp")
    partial.mkdir(parents=True)  # fails if something is there: nothing is ever overwritten
    try:
        extra = COURSEWORK + (CHECKS if checks else ())
        for name in (*COPIED, *(f"coursework/{n}" for n in extra)):
            if (root / name).is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", "*.tmp", ".*")
                shutil.copytree(root / name, partial / name, ignore=unwanted)
            elif (root / name).exists():
                (partial / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(root / name, partial / name)
        for file in {task.file for task in cut}:
            source = (root / file).read_text()
            (partial / file).write_text(blank(source, [t for t in cut if t.file == file]))
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return cut


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="a new folder outside of the repository")
    parser.add_argument("--equations", nargs="+", metavar="N", default=(), help=HELP)
    parser.add_argument("--no-checks", action="store_true", help="leave grader and checks out")
    args = parser.parse_args()
    try:
        cut = make(args.out, args.equations, not args.no_checks)
    except (ValueError, OSError) as e:
        sys.exit(f"make.py: {e}")
    print(f"{args.out}: {len(cut)} tasks: {', '.join(t.name for t in cut)}")


if __name__ == "__main__":
    main()
