"""Changes of meaning, one at a time in a copy: each must turn a test red. (-m mutants)

They say that the tests notice; which lines they do not notice, a tool finds (support/MUTANTS.md).
Scikit-learn and scipy are hidden, since a user of requirements.txt has neither.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("emtc.py", "kmeans.py", "metrics.py", "uea_loader.py", "train.py", "test_emtc.py",
          "pyproject.toml", "support", "related", "data")  # fmt: skip
HIDE = "import sys\nsys.modules.update(dict.fromkeys(('sklearn', 'scipy', 'aeon')))\n"
# What the tests of each file are called, so that a change need not wait for all of them.
TESTS = {
    "emtc.py": ["test_emtc.py", "support/test_ours.py", "support/test_estimator.py"],
    "kmeans.py": ["support/test_core.py", "support/test_kmeans_metrics.py", "-k", "kmeans"],
    "metrics.py": ["support/test_core.py", "support/test_kmeans_metrics.py", "-k",
                   "metric or accuracy or match or f1 or nmi or ari"],
    "uea_loader.py": ["support/test_core.py", "support/test_loader.py", "-k",
                      "load or label or file or form or split or bundled"],
    "train.py": ["support/test_core.py", "support/test_train.py"],
}  # fmt: skip
CHANGES = [
    ("emtc.py", "M = (S >= epsilon)", "M = (S > epsilon)"),
    ("emtc.py", "M.to(S.dtype) + (S - S.detach())", "M.to(S.dtype)"),
    ("emtc.py", "loss = torch.logaddexp(L_plus, L_minus) - L_plus", "loss = L_minus - L_plus"),
    ("emtc.py", "(sim / tau).m", "(sim / 0.1).m"),
    ("emtc.py", "contra + alpha * intra + beta * inter", "contra + beta * intra + alpha * inter"),
    ("emtc.py", "contra + alpha * intra", "contra + 0.1 * intra"),
    ("emtc.py", "range(V) if i != j]", "range(V) if i < j]"),
    ("emtc.py", "[h] + [32] * 5 + [D]", "[h] + [32] * 4 + [D]"),
    ("emtc.py", "[h, 32, 32, 32, h]", "[h, 32, 32, h]"),
    ("emtc.py", "x.relu() if layer else x", "x"),
    ("emtc.py", "KERNELS[v % len(KERNELS)]", "KERNELS[0]"),
    ("emtc.py", "power=0.75", "power=0.0"),
    ("emtc.py", ".clamp_min(1e-2)\n", ".clamp_min(1e-9)\n"),
    ("emtc.py", "min(rank, len(s) - 1)", "min(rank, len(s))"),
    ("emtc.py", "W.data /= self", "W.data *= 0 * self"),
    ("emtc.py", "std = (X - mean).square().nanmean(0)", "std = (X - mean).square().nanmean()"),
    ("emtc.py", "min(self._o.batch_size, math.ceil(len(x) / 4))", "math.ceil(len(x) / 4)"),
    ("emtc.py", "torch.randperm(N, generator=self._rng)", "torch.arange(N)"),
    ("emtc.py", "* (len(batch) / N)", "/ math.ceil(N / B)"),
    ("emtc.py", "(self._random((B, T)) - 2 * there)", "(-2.0 * there)"),
    ("emtc.py", "(X - X_v).square() * observed", "(X - X_v).square()"),
    ("emtc.py", "/ observed.sum().clamp_min(1)", "/ observed.numel()"),
    ("emtc.py", "F_versions[-1], x[batch]", "F_versions[0], x[batch]"),
    ("emtc.py", "(M, M.detach())", "(M, M)"),
    ("emtc.py", "more if change <= SETTLED else less", "more"),
    ("emtc.py", "share * weight", "share"),
    ("emtc.py", "E = self._o, self._embed(x, observed, M)", "E = self._o, self._embed(x, observed, M | True)"),
    ("emtc.py", "found.centers[new.argsort()]", "found.centers"),
    ("emtc.py", "((0, 1), (1, 0)) if two", "((0, 1), (0, 1)) if two"),
    ("emtc.py", 'theirs = (tuple(resume["shape"]), len', 'theirs = (self._shape, len'),
    ("emtc.py", "if eq10 < min(", "if eq10 > min("),
    ("emtc.py", "torch.full_like(x, 0.5) * observed", "torch.full_like(x, 0.5)"),
    ("emtc.py", "some = slice(None, None, math.ceil(len(x) / SAMPLES))", "some = slice(None, SAMPLES)"),
    ("emtc.py", "(v[:: math.ceil(len(E) / SAMPLES)] for", "(v[:SAMPLES] for"),
    ("emtc.py", "self._bearable(x, observed) if o.hide", "o.hide if o.hide"),
    ("emtc.py", "self._random(x.shape) >= share + 0.05)", "self._random(x.shape) >= share)"),
    ("emtc.py", "(self._hidden, 0.4 * self._hidden)", "(self._hidden, 0.5 * self._hidden)"),
    ("emtc.py", "(self._random(x.shape) < o.keep)", "(self._random(x.shape) < 0.8)"),
    ("emtc.py", "SeedSequence((self._o.seed, number))", "SeedSequence((self._o.seed + number, 0))"),
    ("emtc.py", "return settled and self._hidden >= self._o.hide", "return settled"),
    ("emtc.py", "max(min(0.05, o.hide), 0.9 * self._hidden)", "0.9 * self._hidden"),
    ("emtc.py", "x[batch], observed[batch])", "x[batch], observed[batch] | True)"),
    ("emtc.py", "x = z_score(X, self._mean, self._std)", "x = z_score(X, *scaling(X))"),
    ("emtc.py", "std > 1e-14 * mean.abs()", "std > 0"),
    ("kmeans.py", "tol=1e-4", "tol=1.0"),
    ("kmeans.py", "best = _all_ranks(cost, group).argmin(1)", "best = _all_ranks(cost, group).argmax(1)"),
    ("kmeans.py", "group).argmin())", "group).argmax())"),
    ("metrics.py", "2 * information / entropies", "information / np.sqrt(-(p * np.log(p)).sum() * -(q * np.log(q)).sum())"),
    ("metrics.py", "(A + B) * pairs - 2 * A * B", "2 * max(A, B) * pairs - 2 * A * B"),
    ("metrics.py", "match(table * (side * unit) + (terms * unit).astype(np.int64))", "match(table)"),
    ("uea_loader.py", '    split="test",', '    split="train",'),
    ("uea_loader.py", "sorted(files, reverse=True)", "sorted(files)"),
    ("uea_loader.py", "str(int(c)) if c == int(c) else str(c)", "str(int(c))"),
    ("train.py", "{name: scores(data.y, labels)", "{name: scores(data.y[::-1], labels)"),
    ("train.py", "job.cls(job.g, seed=seed, **off)", "job.cls(job.g, seed=0, **off)"),
    ("train.py", "job.g, seed=seed)\n", "job.g, seed=0)\n"),
    ("train.py", 'now["ACC"] > best["ACC"]', 'now["ACC"] >= 0'),
    ("train.py", 'state["oracle"] = better(state, data.y, labels)', 'record |= better(state, data.y, labels)'),
]  # fmt: skip


def test_each_change_is_of_a_line_that_stands_there():
    texts = {file: (ROOT / file).read_text() for file in TESTS}
    assert [(file, old) for file, old, _ in CHANGES if texts[file].count(old) != 1] == []


@pytest.mark.mutants
@pytest.mark.parametrize("file, old, new", CHANGES)
def test_a_change_of_meaning_turns_a_test_red(tmp_path, file, old, new):
    source = (ROOT / file).read_text()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / file).write_text(source.replace(old, new, 1))
    (tmp_path / "conftest.py").write_text(HIDE)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS[file]]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 1, done.stdout.decode()[-500:]  # 1: tests were run, and one failed
