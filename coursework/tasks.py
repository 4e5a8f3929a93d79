"""The tasks of the coursework, found in the code by `ast`, so that they cannot fall behind it."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

OTHERS = {  # beside the functions of emtc.py whose docstring ends in "Eq. (n)."
    "emtc.py": ("EMTC._train",),
    "kmeans.py": ("e_step", "m_step"),
    "metrics.py": ("bidding_round", "accuracy", "f1", "nmi", "ari"),
}
HELP = "the tasks that are handed out: 3, 10-12 or a function's name; default all"


class Task(NamedTuple):
    name: str  # "Eq. (3)", or the function's own
    file: str
    function: str  # a method as "class.method"
    first: int  # the first and the last line of what the student writes, 1 = first line of the file
    last: int


def functions(tree):
    """{name: node} of a file's functions, and of its classes' methods as "class.method"."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}": method for name, method in functions(node).items()}
    return found


def tasks(root):
    """All tasks of the code in `root`, in the order of the equations, then of OTHERS."""
    equations, others = {}, []
    for file, names in OTHERS.items():
        found = functions(ast.parse((Path(root) / file).read_text()))
        for function, node in found.items():
            doc = " ".join((ast.get_docstring(node) or "").split())
            number = re.search(r"Eq\. \((\d+)\)\.$", doc)
            lines = (node.body[0].end_lineno + 1, node.end_lineno)
            if number and file == "emtc.py" and "." not in function:
                name = f"Eq. ({number[1]})"
                equations[int(number[1])] = Task(name, file, function, *lines)
        missing = set(names) - set(found)
        if missing:
            raise ValueError(f"{file} has no function {', '.join(sorted(missing))}")
        others += [
            Task(name, file, name, found[name].body[0].end_lineno + 1, found[name].end_lineno)
            for name in names
        ]
    return [equations[n] for n in sorted(equations)] + others


def chosen(all_tasks, words):
    """Those of the tasks that are named: "3", "10-12", "ari", "EMTC._train"; without words all."""
    if not words:
        return all_tasks
    names = set()
    for word in words:
        first, _, last = word.partition("-")
        if first.isdigit() and (last or first).isdigit():
            names |= {f"Eq. ({n})" for n in range(int(first), int(last or first) + 1)}
        else:
            names.add(word)
    wrong = names - {t.name for t in all_tasks}
    if wrong:
        known = ", ".join(t.name for t in all_tasks)
        raise ValueError(f"no task {', '.join(sorted(wrong))}; there are {known}")
    return [t for t in all_tasks if t.name in names]
