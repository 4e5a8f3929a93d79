"""Grade a hand-out: points for each task, and one line of help for each that fails.

python coursework/grade.py ../hand-out
python coursework/grade.py ../hand-out --equations 3 5 10-12 --json results.json

Each task is graded in a process of its own, with the student's function put into the reference and
everything else left as it is, by the checks in this folder. Of the student's file only the
function counts, with the imports, names and functions that the student added. An endless loop, a
crash, an exit, a huge allocation or a flood of output costs that task alone. This is against
mistakes: whoever wants to cheat can, and who distrusts a hand-out should grade it in a container.
"""

import argparse
import ast
import contextlib
import ctypes
import importlib
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import tasks as found  # noqa: E402

AT_ONCE = 4  # processes
CPU_SECONDS = 5  # of a task; the reference needs less than one
SECONDS = 10  # of a task by the clock, less the time it had to wait for a processor
MEMORY = 2**30  # bytes beyond what the reference itself has
FORBIDDEN = ("scipy", "sklearn")  # a task is to be written, not to be called


# ---- in the child: the student's code


def limits():
    """What a task may use; no terminal, no file to write to, no network, no further process."""
    os.setsid()  # a group of its own, so that all of it can be ended
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdout = sys.stderr = open(null, "w")
    used = 0
    with contextlib.suppress(OSError):  # not Linux: no limit on memory there
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = dict.fromkeys(("CORE", "FSIZE", "NPROC"), (0, 0)) | {
        "CPU": (CPU_SECONDS, CPU_SECONDS + 1)
    }
    limit |= {"AS": (used + MEMORY, used + MEMORY)} if used else {}
    for name, value in limit.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), value)
    with contextlib.suppress(AttributeError, OSError):  # Linux: namespaces of one's own
        new_user, new_network = 0x10000000, 0x40000000
        ctypes.CDLL(None).unshare(new_user | new_network)

    def refused(*_, **__):
        raise PermissionError("there is no network in the grader")

    socket.socket = refused
    loaded = [name for name in sys.modules if name.split(".")[0] in FORBIDDEN]
    sys.modules.update(dict.fromkeys([*FORBIDDEN, *loaded]))  # None: an import fails


def parsed(source):
    """The top-level statements of `source`; where it does not parse, those parts that do."""
    try:
        return ast.parse(source).body, []
    except SyntaxError as e:
        nodes, errors, whole, at = [], [], e, 0
        for part in re.split(r"^(?=(?:def|class|import|from|\w+ *=)\b|@)", source, flags=re.M):
            try:
                nodes += ast.parse("\n" * at + part).body
            except SyntaxError as e:
                errors.append((part, f"line {e.lineno}: {e.msg}"))
            at += part.count("\n")
        return nodes, errors or [(source, f"line {whole.lineno}: {whole.msg}")]


def defined(node):
    """The names that a top-level statement defines; of one that does something else none."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(a.asname or a.name).partition(".")[0] for a in node.names]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = getattr(node, "targets", [])
    return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def plant(task, folder):
    """Put the student's function, and what it may need, into the reference -> what went wrong."""
    from checks import Wrong

    module, path, troubles = importlib.import_module(task.file[:-3]), folder / task.file, []
    owner, _, name = task.function.rpartition(".")
    nodes, errors = parsed(path.read_text())
    mine = None

    def run(node, scope):
        exec(compile(ast.Module([node], []), str(path), "exec"), module.__dict__, scope)

    for node in nodes:
        names = defined(node)
        if not owner and names == [name]:
            mine = node
        elif names and not set(names) & set(vars(module)):
            try:
                run(node, module.__dict__)
            except Exception as e:
                troubles.append(f"line {node.lineno}: {e}")
        elif owner and names == [owner]:
            new = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
            mine = new.get(name)
            for method in new.values():
                if method is mine or not hasattr(getattr(module, owner), method.name):
                    scope = {}
                    run(method, scope)
                    setattr(getattr(module, owner), method.name, scope[method.name])
    if mine is None:
        for part, message in errors:
            if f"def {name}(" in part:
                raise Wrong(f"{task.file}, {message}")
        raise Wrong(f"{task.file} has no function {task.function}")
    if not owner:
        run(mine, module.__dict__)
    return getattr(module, name) if not owner else getattr(getattr(module, owner), name), troubles


def attempt(task, folder):
    """None where the student's function passes its checks, otherwise one line of help."""
    import torch
    from checks import CHECKS, Wrong

    torch.set_num_threads(1)  # torch's threads do not outlive a fork
    sys.path.append(str(folder))
    troubles = []
    try:
        function, troubles = plant(task, folder)
        CHECKS[task.function].check(function)
    except Wrong as e:
        return str(e)
    except NotImplementedError as e:
        return "not written yet" if str(e) == task.name else f"needs {e}, which is not written yet"
    except MemoryError:
        return f"needs more than {MEMORY >> 20} MB of memory"
    except BaseException as e:
        line, at = None, e.__traceback__
        while at:
            if at.tb_frame.f_code.co_filename == str(folder / task.file):
                line = at.tb_lineno
            at = at.tb_next
        where = f"{task.file}, line {line}: " if line else ""
        told = str(e).strip().splitlines()
        for name in FORBIDDEN:
            if isinstance(e, ImportError) and name in str(e):
                told = [f"{name} is not allowed here"]
        more = f" ({troubles[0]})" if troubles and isinstance(e, NameError) else ""
        return f"{where}{type(e).__name__}{': ' + told[0] if told else ''}{more}"
    return None


# ---- in the parent: processes, and their answers


def start(task, folder):
    """Fork a process for the task -> pid, the pipe's end to read from."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    try:
        limits()
        answer = {"help": attempt(task, folder)}
        if answer["help"] is not None:
            answer["help"] = answer["help"][:300]
        os.write(theirs, json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def queued(pid):
    """Seconds for which a process waited for a processor, so that a busy machine fails nobody."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # not Linux: 0
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def verdict(text, status, late):
    """What a process left behind -> None for a pass, or the line of help."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = json.loads(text.split(b"\n")[0])["help"]
        return told if told is None else " ".join(str(told).split())[:300]
    if late:
        return f"no answer within {SECONDS} s"
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return f"no answer within {CPU_SECONDS} s of computing; an endless loop?"
    how = f"was ended by signal {number}" if number else "ended itself"
    return f"the process {how} before it had an answer"


def grade(folder, chosen):
    """The tasks `chosen`, graded -> {name: None for a pass, or a line of help}."""
    folder = Path(folder).resolve()
    loop = ("torch._dynamo",) if any(t.function == "EMTC._train" for t in chosen) else ()
    for name in ("emtc", "kmeans", "metrics", "checks", *loop):  # Adam's first step needs the last
        importlib.import_module(name)  # once, here, so that no process has to
    waiting, running, result = list(chosen)[::-1], {}, {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            task = waiting.pop()
            pid, pipe = start(task, folder)
            running[pipe] = [task, pid, time.monotonic(), b""]
        ready = select.select(list(running), [], [], 0.1)[0]
        for pipe in list(running):
            task, pid, started, text = running[pipe]
            more = os.read(pipe, 4096) if pipe in ready else None
            late = time.monotonic() - started - queued(pid) > SECONDS
            running[pipe][3] = text + (more or b"")
            if more and not late and len(text) < 65536:
                continue
            if more is None and not late:
                continue
            os.kill(pid, signal.SIGKILL)  # one that ended keeps its own status
            status = os.waitpid(pid, 0)[1]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it may have started
            os.close(pipe)
            result[task.name] = verdict(running.pop(pipe)[3], status, late)
    return {task.name: result[task.name] for task in chosen}


def report(result, chosen):
    """Gradescope's results.json, as a dict."""
    from checks import CHECKS

    tests = []
    for task in chosen:
        points, told = CHECKS[task.function].points, result[task.name]
        name = task.name if task.name == task.function else f"{task.name} {task.function}"
        passed = "failed" if told else "passed"
        tests.append({"name": name, "score": 0 if told else points, "max_score": points,
                      "status": passed, "output": told or "right"})  # fmt: skip
    return {"score": sum(t["score"] for t in tests), "tests": tests}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the hand-out as the student gives it back")
    parser.add_argument("--equations", nargs="+", metavar="N", default=(), help=found.HELP)
    parser.add_argument("--json", type=Path, help="write the points there in Gradescope's form")
    args = parser.parse_args()
    if not args.folder.is_dir():
        sys.exit(f"grade.py: {args.folder} is no folder")
    try:
        chosen = found.chosen(found.tasks(HERE.parent), args.equations)
        table = report(grade(args.folder, chosen), chosen)
    except (ValueError, SyntaxError) as e:
        sys.exit(f"grade.py: {e}")
    for test in table["tests"]:
        print(f"{test['name']:32} {test['score']} of {test['max_score']}  {test['output']}")
    passed = sum(t["status"] == "passed" for t in table["tests"])
    most = sum(t["max_score"] for t in table["tests"])
    print(f"{passed} of {len(table['tests'])} tasks, {table['score']} of {most} points")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
