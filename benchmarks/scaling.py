"""How an epoch grows with the length and with the number of the series, and what max_keys changes.

long: T up to EigenWorms' 17 984 timestamps of 6 variates with the default max_keys=256, and up to
8192 with exact attention; few series, seconds divided by their number. many: N series of 20
timestamps and 4 variates, seconds, memory and where they go. keys: the importance of the same
network with fewer keys against the exact one. processes: a run of two against one by torchrun.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from epoch import ROOT, exponent, measure

LENGTHS = (1024, 2048, 4096, 8192, 17984)
NUMBERS = (1250, 5000, 20_000, 100_000)
MANY = dict(N=200_000, T=64, D=4)
TOGETHER = ("BasicMotions", "RacketSports", "NATOPS", "Epilepsy")
WORMS = dict(N=131, T=17984)  # EigenWorms' test split


def long(quick):
    yield written_out()
    if quick:
        return
    for how, N, lengths in (("default", 4, LENGTHS), ("exact", 2, LENGTHS[:-1])):
        costs = []
        for T in lengths:
            keys = {"max_keys": T} if how == "exact" else {}
            p = measure(N=N, T=T, D=6, g=N, epochs=2 if T < 4000 else 1, **keys)
            costs.append(p["seconds"] / N)
            note = f"CPU s a series, {N} series x 6 variates; peak {p['mb']:.0f} MB"
            yield dict(what=f"epoch, T = {T}, {how}", value=costs[-1], note=note)
        last = lengths[-1]
        slope = exponent(lengths[-3:], costs[-3:])
        yield dict(what=f"exponent in T, {how}", value=slope, note=f"T = {lengths[-3]} to {last}")
        minutes = costs[-1] * (WORMS["T"] / last) ** 2 * WORMS["N"] / 60
        note = f"CPU minutes an epoch, one thread, 131 x 17984 x 6; from {N} series of T = {last}"
        note += ", EXTRAPOLATED as T^2" * (how == "exact")
        yield dict(what=f"EigenWorms, {how}", value=minutes, note=note)


def written_out():
    """Correctness: Eq. (2) by torch against softmax(Q K^T / sqrt(h)) Z with the matrix stored."""
    import torch

    from emtc import attention

    Q, K, Z = torch.randn(3, 2, 3, 200, 4, generator=torch.Generator().manual_seed(0))
    observed = torch.ones(2, 3, 200, dtype=torch.bool)
    error = float((attention(Q, K, Z, observed) - (Q @ K.mT / 2).softmax(-1) @ Z).abs().max())
    note = "largest of S, which is of unit size"
    return dict(what="attention, error", value=error, note=note, ok=error < 1e-5)


def many(quick):
    numbers, points = (100, 200) if quick else NUMBERS, []
    for N in numbers:
        points.append(p := measure(N=N, T=20, D=4, epochs=2 if N < 5000 else 1))
        shares = ", ".join(f"{part} {share:.0%}" for part, share in p["share"].items())
        note = f"CPU s; peak {p['mb']:.0f} MB; {shares}"
        yield dict(what=f"epoch, N = {N}", value=p["seconds"], note=note)
    span = f"N = {numbers[0]} to {numbers[-1]}, T = 20, D = 4"
    slope = exponent(numbers, [p["seconds"] for p in points])
    yield dict(what="exponent in N", value=slope, note=span)
    if not quick:
        p = measure(**MANY)
        note = f"times that of 20000 x 20 x 4; {p['seconds']:.0f} CPU s; peak {p['mb']:.0f} MB"
        ratio = p["seconds"] / points[numbers.index(20_000)]["seconds"]
        yield dict(what="epoch, 200000 x 64 x 4", value=ratio, note=note)
    kB = (points[-1]["mb"] - points[-2]["mb"]) * 1024 / (numbers[-1] - numbers[-2])
    note = "kB a series beside X, of the last two: copies of X, masks, importances, k-means"
    yield dict(what="memory, slope in N", value=kB, note=note)


def keys(quick, name="StandWalkJump"):
    """On real data, by a network trained with exact attention."""
    import torch

    from emtc import EMTC, threshold, z_scored
    from uea_loader import load

    folder = ROOT.parent / "shared" / "data"
    if not (folder / name).is_dir():
        yield dict(what=f"keys, {name}", value=None, note=f"left out: no {folder / name}")
        return
    X = load(name, data_dir=folder, download=False).X
    X, epochs = (X[:4, :300], 1) if quick else (X, 3)
    model = EMTC(3, epochs=epochs, n_starts=1, max_keys=X.shape[1], device="cpu").fit(X)
    x, there = (v.transpose(1, 2).contiguous() for v in z_scored(X))
    epsilon, network = 0.45, model.net_.importance  # the default masks too little to compare
    with torch.no_grad():
        exact = network(x, there)
        for limit in (64, 256, 1024):
            network.max_keys = limit
            rough = network(x, there)
            error = float((rough - exact).abs().mean())
            differ = threshold(rough, there, epsilon) != threshold(exact, there, epsilon)
            masked = 1 - float(threshold(exact, there, epsilon).float().mean())
            share = float(differ.float().mean())
            note = f"mean |S - exact|; mask differs in {share:.3%} of the entries, {masked:.1%} "
            note += f"are masked at epsilon = {epsilon}; T = {X.shape[1]}, {epochs} epochs"
            equal = limit < X.shape[1] or error == 0
            yield dict(what=f"max_keys={limit} on {name}", value=error, note=note, ok=equal)


def processes(quick):
    """The same run by one process and by two: are the labels the same, how much faster is it?"""
    options = ["--epochs", "2" if quick else "12", "--starts", "1", "--seeds", "0", "--quiet"]
    for name in TOGETHER[:1] if quick else TOGETHER:
        homes = [d for d in (ROOT / "data", ROOT.parent / "shared" / "data") if (d / name).is_dir()]
        if not homes:
            yield dict(what=f"two processes, {name}", value=None, note=f"left out: no {name}")
            continue
        data = ["--data", name, "--data-dir", str(homes[0])]
        (one, first, labels), (two, second, same) = (trained(n, *data, *options) for n in (1, 2))
        error = max(abs(a - b) / a for a, b in zip(first, second))
        note = f"times as fast as one, {one:.1f} s; losses differ by {error:.1g} of them at most, "
        note += "labels " + ("equal" if labels == same else "DIFFER")
        yield dict(what=f"two processes, {name}", value=one / two, note=note, ok=labels == same)
    if quick:
        return
    with ThreadPoolExecutor(2) as pool:  # what the two cores give, without a message between them
        both = [seconds for seconds, *_ in pool.map(lambda n: trained(n, *data, *options), (1, 1))]
    note = f"times the work of one run in the same time; {max(both):.1f} s"
    yield dict(what=f"two runs side by side, {data[1]}", value=2 * one / max(both), note=note)


def trained(n, *options):
    """(seconds, total losses, labels.csv) of train.py by n processes, one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
        run = [sys.executable, *(several if n > 1 else []), str(ROOT / "train.py"), *options]
        subprocess.run([*run, "--out", f"{folder}/run"], check=True, capture_output=True)
        read = lambda file: Path(folder, "run", file).read_text()
        seconds = json.loads(read("results.json"))["per_seed"][0]["seconds"]
        losses = [json.loads(line)["total"] for line in read("log.jsonl").splitlines()]
        return seconds, losses, read("labels.csv")
