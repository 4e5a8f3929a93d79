"""The hand-out and its grader: right, blank, wrong and hostile solutions; the notebook runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "coursework"), str(ROOT)]

import checks  # noqa: E402
import grade  # noqa: E402
import make  # noqa: E402
import tasks as found  # noqa: E402

TASKS = found.tasks(ROOT)
POINTS = {t.name: checks.CHECKS[t.function].points for t in TASKS}

WRONG = {  # task -> what students would write instead, and what the help must say
    "Eq. (2)": ("""
def attention(Q, K, Z, observed):
    return torch.softmax(Q @ K.transpose(2, 3), 3) @ Z  # without the square root of h
""", "S[0, 0, 0, 0] is"),
    "Eq. (3)": ("""
def threshold(S, observed, epsilon):
    M, S = (S > epsilon) & observed, S.masked_fill(~observed, -1)  # not >=
    best = nnf.one_hot(S.flatten(1).argmax(1), S[0].numel()).bool().view_as(S)
    return M | (best & ~M.flatten(1).any(1)[:, None, None])
""", "M[0, 0, 1] is False, should be True"),
    "Eq. (5)": ("""
def intra_loss(X, X_v, observed):
    return ((X - X_v).square() * observed).mean(2).sum()  # over the wrong axis
""", "the loss of two views"),
    "Eq. (6)": ("""
def inter_loss(F, H, pairs):
    i, j = map(list, zip(*pairs))
    both = zip(i, j, F[j], H(F[i]))
    return sum((pair_loss(a, b) for n, m, a, b in both if n < m), torch.zeros(()))  # i < j only
""", "the loss over the pairs [(1, 0)]"),
    "Eq. (8)": ("""
def fuse(pooled, shift, scale, W):
    return (pooled.transpose(0, 1).flatten(1) - shift) / scale @ W  # not of unit length
""", "F[0, 0] is"),
    "Eq. (9)": ("""
def cluster(E, g, n_init, generator, before=None):
    found = kmeans(E, g, n_init=n_init, seed=generator)
    return found.labels, found.centers  # numbered anew each time
""", "numbered as far as may be like those before"),
    "Eq. (10)": ("""
def contrast(L_plus, L_minus):
    plus, minus = L_plus.exp(), L_minus.exp()  # overflow
    loss = -(plus / (plus + minus)).log()
    paired = plus > 0
    return torch.where(paired, loss, 0).sum() / paired.sum().clamp_min(1)
""", "the loss of log L+ = log L- = 1000 is nan"),
    "Eq. (11)": ("""
def pair_sum(sim, pairs, tau):
    return (sim / tau).logsumexp(1)  # the self-pair, and all others, kept
""", "log L with tau = .5[0] is"),
    "Eq. (12)": ("""
def cosine(E, anchors):
    return anchors @ E.T  # not divided by the lengths
""", "sim[0, 0] is 3, should be 0.6"),
    "e_step": ("""
def e_step(x, C):
    least, labels = torch.cdist(C, x[None].expand(len(C), -1, -1)).square().min(1)
    return labels, least  # not half, and |x|^2 still in it
""", "minima[0, 1] is 1, should be 0"),
    "m_step": ("""
def m_step(x, labels, before, sums, group=None):
    own = labels[:, :, None] == torch.arange(sums.shape[1])
    sums.copy_((own.transpose(1, 2).double() @ x.double()))
    sizes = own.sum(1)
    return (sums / sizes[:, :, None]).to(x.dtype), sizes  # 0 / 0
""", "centres (0 without points)[0, 2, 0] is nan, should be 0"),
    "accuracy": ("""
from scipy.optimize import linear_sum_assignment
def accuracy(y_true, y_pred):
    from scipy.optimize import linear_sum_assignment
    table = contingency(y_true, y_pred)
    return float(table[linear_sum_assignment(-table)].sum() / table.sum())
""", "scipy is not allowed"),
    "f1": ("""
def f1(y_true, y_pred):
    table = contingency(y_true, y_pred)
    total, t = 0.0, (2 * table / (table.sum(1)[:, None] + table.sum(0)))
    while t.size:  # greedy
        i, j = np.unravel_index(t.argmax(), t.shape)
        total, t = total + t[i, j], np.delete(np.delete(t, i, 0), j, 1)
    return total / len(table)
""", "F1, "),
    "nmi": ("""
def nmi(y_true, y_pred):
    joint = contingency(y_true, y_pred) / len(y_true)
    p, q, some = joint.sum(1), joint.sum(0), joint > 0
    if len(p) == len(q) == 1:
        return 1.0
    information = (joint[some] * np.log(joint[some] / np.outer(p, q)[some])).sum()
    entropies = -(p * np.log(p)).sum(), -(q * np.log(q)).sum()
    return float(information / max(1e-12, np.sqrt(entropies[0] * entropies[1])))  # geometric mean
""", "NMI, "),
    "ari": ("""
def ari(y_true, y_pred):
    table = contingency(y_true, y_pred)
    both, A, B, pairs = (float((m * (m - 1.0) / 2).sum())
                         for m in (table, table.sum(1), table.sum(0), table.sum()))
    return (pairs + 2 * both - A - B) / pairs  # the Rand index, not adjusted
""", "ARI of 0 0 1 1 and 0 1 0 1 is 0.3333, should be -0.5"),
}  # fmt: skip
AGAIN = {  # second mistakes in the same tasks
    "Eq. (3)": ("""
def threshold(S, observed, epsilon):
    return (S < epsilon) & observed  # inverted
""", "M[0, 0, 0] is True, should be False"),
    "Eq. (10)": ("""
def contrast(L_plus, L_minus):
    loss = torch.logaddexp(L_plus, L_minus) - L_plus
    return torch.where(L_plus > -math.inf, loss, 0).mean()  # of all anchors
""", "the second anchor has no positive pair"),
    "Eq. (12)": ("def cosine(E, anchors)\n    return anchors @ E.T\n", "expected ':'"),
    "bidding_round": ("""
def bidding_round(benefit, price, col, owner, epsilon):
    for i in np.flatnonzero(col < 0):  # one bid after the other, and the loser keeps its column
        value = benefit[i] - price
        j, ranked = value.argmax(), np.sort(value)
        price[j] += (ranked[-1] - ranked[-2] if len(ranked) > 1 else 0) + epsilon
        col[i], owner[j] = j, i
""", "col[0] is 0, should be -1"),
    "accuracy": ("""
def accuracy(y_true, y_pred):
    table = contingency(y_true, y_pred)
    return float(table.max(0).sum() / table.sum())  # purity
""", "ACC of 10, 9, 0 and 9"),
}  # fmt: skip
HOSTILE = {
    "Eq. (1)": ("while True:\n        pass", "an endless loop?"),
    "Eq. (4)": ("import time\n    time.sleep(1000)", "no answer within"),
    "Eq. (5)": ("import ctypes\n    ctypes.string_at(0)", "ended by signal 11"),
    "Eq. (6)": ("import os\n    os._exit(0)", "ended itself"),
    "Eq. (7)": ("raise SystemExit(0)", "SystemExit"),
    "Eq. (8)": ("import numpy\n    return bytearray(2**36)", "memory"),
    "Eq. (9)": ("import os, time\n    os.closerange(3, 99)\n    time.sleep(1000)", "an answer"),
    "Eq. (10)": ("return torch.zeros(2**36)", "memory"),
    "Eq. (11)": ("while tau:\n        print('x' * 10**6)", "an endless loop?"),
    "Eq. (12)": ("import socket\n    socket.create_connection(('127.0.0.1', 9))", "no network"),
    "Eq. (13)": ("import os\n    [os.write(n, b'{' * 99999) for n in range(3, 40)]", ""),
    "f1": ("return f1(y_true, y_pred)", "RecursionError"),
    "ari": ("open('/tmp/never', 'w').write('x' * 9999)", "OSError"),
}  # fmt: skip


@pytest.fixture
def blank(tmp_path):
    make.make(tmp_path / "hand-out")
    return tmp_path / "hand-out"


@pytest.fixture
def full(blank):
    for file in found.OTHERS:
        (blank / file).write_text((ROOT / file).read_text())
    return blank


def put(folder, task, text):
    """Replace the task's function in a full hand-out by `text`."""
    task = next(t for t in found.tasks(folder) if t.name == task)
    lines = (folder / task.file).read_text().splitlines(keepends=True)
    head = f"def {task.function}("
    start = max(n for n, line in enumerate(lines[: task.first]) if head in line)
    lines[start : task.last] = [text.strip("\n") + "\n"]
    (folder / task.file).write_text("".join(lines))


def fill(folder, task):
    """Write the reference's body of one task into a blank hand-out."""
    mine = next(t for t in found.tasks(folder) if t.name == task.name)
    lines = (folder / task.file).read_text().splitlines(keepends=True)
    body = (ROOT / task.file).read_text().splitlines(keepends=True)[task.first - 1 : task.last]
    lines[mine.first - 1 : mine.last] = body
    (folder / task.file).write_text("".join(lines))


def score(result, chosen=TASKS):
    return grade.report(result, chosen)["score"]


# ---- the tasks and the hand-out


def test_every_equation_is_a_task_and_every_task_has_a_check():
    assert [t.name for t in TASKS[:13]] == [f"Eq. ({n})" for n in range(1, 14)]
    assert {t.function for t in TASKS} == set(checks.CHECKS)
    assert {checks.CHECKS[t.function].assignment for t in TASKS} == {1, 2, 3, 4}


def test_the_sheet_names_every_task_with_its_points():
    sheet = (ROOT / "coursework/README.md").read_text()
    rows = re.findall(r"^\| (?:Eq\. \((\d+)\) )?`([\w.]+)` \| (\d) \| (\d) \|", sheet, re.M)
    want = {(t.function, *checks.CHECKS[t.function][:2]) for t in TASKS}
    assert {(name, int(a), int(p)) for _, name, a, p in rows} == want
    assert f"{len(TASKS)} tasks, {sum(POINTS.values())} points" in sheet


def test_the_hand_out_keeps_all_but_the_bodies_and_leaves_the_answers_out(blank):
    names = {p.name for p in blank.rglob("*")}
    assert not names & {"answers.md", "make.py", "test_coursework.py", "experiments", "__pycache__"}
    assert {"BasicMotions_TEST.arff", "grade.py", "README.md", "uea_loader.py"} <= names
    for task in TASKS:
        assert f'raise NotImplementedError("{task.name}")' in (blank / task.file).read_text()
    mine, reference = ((f / "emtc.py").read_text() for f in (blank, ROOT))
    assert "\n".join(mine.splitlines()[:40]) == "\n".join(reference.splitlines()[:40])
    assert [t.function for t in found.tasks(blank)] == [t.function for t in TASKS]


def test_never_over_something_never_in_place(tmp_path):
    for out in (tmp_path, ROOT / "coursework/hand-out", ROOT):
        with pytest.raises(ValueError):
            make.make(out)
    with pytest.raises(ValueError, match="no task Eq. \\(14\\)"):
        make.make(tmp_path / "new", ["12-14"])
    assert not list(tmp_path.iterdir())


def test_some_equations_and_without_checks(tmp_path):
    cut = make.make(tmp_path / "new", ["3", "10-12", "ari"], checks=False)
    assert [t.name for t in cut] == ["Eq. (3)", "Eq. (10)", "Eq. (11)", "Eq. (12)", "ari"]
    assert not (tmp_path / "new/coursework/checks.py").exists()
    text = (tmp_path / "new/emtc.py").read_text()
    assert text.count("NotImplementedError") == 4


# ---- the grader


def test_the_reference_gets_full_points():
    result = grade.grade(ROOT, TASKS)
    assert result == dict.fromkeys(result) and score(result) == sum(POINTS.values())


def test_blank_gets_none_and_one_task_its_points(blank):
    result = grade.grade(blank, TASKS)
    assert set(result.values()) == {"not written yet"} and score(result) == 0
    fill(blank, TASKS[2])
    assert score(grade.grade(blank, TASKS)) == POINTS["Eq. (3)"]


@pytest.mark.campaign
@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.function)
def test_each_task_alone_gets_its_points(blank, task):
    fill(blank, task)
    result = grade.grade(blank, TASKS)
    assert [name for name, told in result.items() if told is None] == [task.name]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [WRONG, AGAIN], ids=["wrong", "again"])
def test_wrong_solutions_lose_exactly_their_points(full, wrong):
    for task, (text, _) in wrong.items():
        if "expected" in wrong[task][1]:
            continue
        put(full, task, text)
    for task, (text, told) in wrong.items():  # last, as the file cannot be parsed then
        if "expected" in told:
            put(full, task, text)
    result = grade.grade(full, [t for t in TASKS if t.name != "EMTC._train"])
    assert {name for name, told in result.items() if told} == set(wrong)
    for task, (_, told) in wrong.items():
        assert told in result[task] and len(result[task]) <= 300, (task, result[task])


# Wrong lines of the loop, as (what stands there, what is written, what the grader says).
LOOPS = [
    ("itself=two", "itself=True", "contra of a network that stands"),
    pytest.param("self._adam.step()", "pass", "are not trained", marks=pytest.mark.campaign),
    ("return self._contrast\n", "pass\n", "what is returned, Eq. (10) at the end,"),
    ("len(self.history_) < epochs", "len(self.history_) < o.epochs", "the number of epochs"),
    pytest.param("self._begin(x, observed, number, taught)", "self._begin(x, observed, 0, taught)",
                 "`number` = 0 and 1 are the same", marks=pytest.mark.campaign),
    pytest.param("self._begin(x, observed, number, taught)", "self._begin(x, observed, number, None)",
                 "w of the importance network", marks=pytest.mark.campaign),
    pytest.param("self._update(x, observed, losses)", "self._update(x, observed, losses * 2)",
                 "contra of a network", marks=pytest.mark.campaign),
]  # fmt: skip


def test_the_wrong_loops_change_a_line_that_stands_there():
    text = (ROOT / "emtc.py").read_text()
    rows = [getattr(row, "values", row) for row in LOOPS]
    assert [old for old, _, _ in rows if text.count(old) != 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("old, new, told", LOOPS)
def test_wrong_loops(full, old, new, told):
    text = (full / "emtc.py").read_text()
    (full / "emtc.py").write_text(text.replace(old, new))
    loop = [t for t in TASKS if t.name == "EMTC._train"]
    assert told in grade.grade(full, loop)["EMTC._train"]


@pytest.mark.slow
def test_hostile_solutions_cost_their_own_task_alone(full, monkeypatch):
    monkeypatch.setattr(grade, "SECONDS", 3)
    monkeypatch.setattr(grade, "CPU_SECONDS", 2)
    for name, (body, _) in HOSTILE.items():
        task = next(t for t in found.tasks(full) if t.name == name)
        lines = (full / task.file).read_text().splitlines(keepends=True)
        lines[task.first - 1 : task.last] = ["    " + body + "\n"]
        (full / task.file).write_text("".join(lines))
    result = grade.grade(full, [t for t in TASKS if t.name != "EMTC._train"])
    assert {name for name, told in result.items() if told} == set(HOSTILE)
    for name, (_, told) in HOSTILE.items():
        assert told in result[name] and "\n" not in result[name], (name, result[name])


def test_help_names_the_line_and_own_helpers_count(full):
    put(full, "Eq. (13)", """
def weighted(x, weight):
    return x * weight

def total_loss(contra, intra, inter, alpha, beta):
    return contra + weighted(intra, alpha) + weighted(inter, beta)
""")  # fmt: skip
    put(full, "Eq. (7)", "def pair_loss(F_j, F_ij):\n    return F_j.squared()")
    chosen = found.chosen(TASKS, ["7", "13"])
    result = grade.grade(full, chosen)
    assert result["Eq. (13)"] is None
    line = (full / "emtc.py").read_text().splitlines().index("    return F_j.squared()") + 1
    assert result["Eq. (7)"].startswith(f"emtc.py, line {line}: AttributeError: ")


@pytest.mark.slow
def test_the_commands_of_the_sheet(tmp_path):
    """A teacher makes a hand-out, a student solves Eq. (3), the grader says 1 of n."""
    run = lambda *a: subprocess.run([sys.executable, *a], cwd=ROOT, capture_output=True, text=True)
    out = str(tmp_path / "hand-out")
    some = ("--equations", "3", "7")
    told = run("coursework/make.py", "--out", out, *some)
    assert "2 tasks: Eq. (3), Eq. (7)" in told.stdout, told.stderr
    fill(Path(out), TASKS[2])
    told = run("coursework/grade.py", out, *some, "--json", out + ".json")
    assert told.stdout.splitlines()[-1] == "1 of 2 tasks, 2 of 3 points", told.stderr
    table = json.loads(Path(out + ".json").read_text())
    assert table["score"] == 2 and [t["status"] for t in table["tests"]] == ["passed", "failed"]
    assert run("coursework/make.py", "--out", out).stderr.count("\n") == 1


# ---- the notebook


def notebook():
    path = ROOT / "coursework/walkthrough.ipynb"
    return path, json.loads(path.read_text())


def test_the_notebook_calls_every_equation_defines_none_and_has_its_outputs():
    _, book = notebook()
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    source = "".join("".join(c["source"]) for c in cells)
    functions = [t.function for t in TASKS[:13]]
    places = [source.index(f"emtc.{name}(") for name in functions]
    assert places[:6] == sorted(places[:6])  # as in the paper, where (11), (12) stand inside (10)
    assert not any(f"def {name}" in source for name in functions)
    kinds = [o["output_type"] for c in cells for o in c["outputs"]]
    assert kinds.count("display_data") >= 8 and "error" not in kinds


@pytest.mark.campaign
@pytest.mark.parametrize("data", ["RacketSports", "BasicMotions"])
def test_the_notebook_runs(data):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    path, _ = notebook()
    book = nbformat.read(path, 4)
    for cell in book.cells:
        cell.source = cell.source.replace('"RacketSports"', f'"{data}"')
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
