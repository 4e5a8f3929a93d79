"""How the cost of a training epoch grows with N, T, D and V, and what one epoch of the paper's hardest shapes takes.

    python benchmarks/scaling.py            doubles N, T, D, V in turn on made data: table, fitted exponents
    python benchmarks/scaling.py --quick    two doublings of tiny sizes: shows that it runs, proves nothing
    python benchmarks/scaling.py --hard     one whole epoch each of EigenWorms', DuckDuckGeese's and PEMS-SF's shape
    python benchmarks/scaling.py --keys     attention with max_keys against the exact one: error of S and of the mask

Each point is a process of its own with one thread. Seconds are its CPU seconds in the second epoch (the first has the start).
Memory is the peak resident size less that after the imports and a tiny fit. Points go into benchmarks/scaling.json as
they are measured; those that are there for the same code (a hash of emtc.py and kmeans.py) are not measured again.
"""

import argparse
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FILE = HERE / "scaling.json"
GB = 8
# sweep: (what doubles, its values, the rest, what the exponents must be).
# The sizes start where the doubled one already dominates: at least a batch, and TIMESTAMPS of emtc.py, is full.
SWEEPS = {
    "N": ("N", (64, 128, 256, 512), dict(T=128, D=4, V=2), "seconds 1"),
    "T": ("T", (512, 1024, 2048, 4096), dict(N=16, D=4, V=2), "memory 1; seconds tend to 2: exact attention"),
    "D": ("D", (64, 128, 256, 512), dict(N=32, T=128, V=2), "seconds 1"),
    "V": ("V", (2, 4, 8, 16), dict(N=64, T=128, D=4), "seconds tend to 2: Eq. (6) has V (V - 1) pairs"),
    "V without inter": ("V", (2, 4, 8, 16), dict(N=64, T=128, D=4, drop=("inter",)), "seconds 1"),
}
QUICK = {"N": (8, 16, 32), "T": (64, 128, 256), "D": (4, 8, 16), "V": (2, 4, 8)}
QUICK_REST = dict(N=8, T=64, D=4, V=2)
# shape: (N of an epoch, N measured, T, D, g, batch_size, max_keys). Where fewer samples than N are measured, seconds are
# extrapolated in proportion, which is exact for all but k-means and the contrast with other batches (small beside it).
HARD = {
    "DuckDuckGeese": (50, 50, 270, 1345, 5, 16, None),
    "PEMS-SF": (173, 173, 144, 963, 7, 16, None),
    "EigenWorms": (131, 2, 17984, 6, 5, 2, None),
    "EigenWorms, 512 keys": (131, 131, 17984, 6, 5, 8, 512),
}
KEYS = (16, 64, 256, 1024)


def peak():
    """Bytes: the most that this process ever held.

    Linux's own count where there is one, as ru_maxrss starts from the parent's there: it survives exec.
    """
    try:
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Enough(Exception):
    """Ends `fit` after the last epoch that counts, without the passes that follow it."""


def child(N, T, D, V, g=4, epochs=2, batch_size=64, drop=(), max_keys=None):
    """In a process of its own: the cost of `epochs` epochs on made data, as JSON. The first includes the start."""
    sys.path.insert(0, str(ROOT))
    import torch
    from emtc import EMTC
    torch.set_num_threads(1)
    noise = torch.Generator().manual_seed(0)
    EMTC(2, epochs=1, device="cpu").fit(torch.randn(4, 16, 2, generator=noise))
    before, clock = peak(), [(time.perf_counter(), time.process_time())]

    def on_epoch(model, record):
        clock.append((time.perf_counter(), time.process_time()))
        if len(clock) > epochs:
            raise Enough

    try:
        EMTC(g, n_views=V, epochs=epochs, batch_size=batch_size, drop=drop, max_keys=max_keys, device="cpu").fit(
            torch.randn(N, T, D, generator=noise), on_epoch)
    except Enough:
        pass
    steps = [[b - a for a, b in zip(*pair)] for pair in zip(clock, clock[1:])]
    wall, cpu = zip(*(steps[1:] or steps))
    print(json.dumps({"wall_s": min(wall), "cpu_s": min(cpu), "memory_mb": (peak() - before) / 2 ** 20,
                      "whole_mb": peak() / 2 ** 20, "torch": torch.__version__.split("+")[0]}))


def measure(file=FILE, **size):
    """One point: from `file`, if it was measured with this very code, else in a process of its own."""
    code = hashlib.sha256((ROOT / "emtc.py").read_bytes() + (ROOT / "kmeans.py").read_bytes()).hexdigest()[:12]
    key = " ".join(f"{name}={value}" for name, value in size.items() if value not in ((), None))
    stored = json.loads(file.read_text()) if file.exists() else {}
    if stored.get(key, {}).get("code") == code:
        return stored[key]
    run = subprocess.run([sys.executable, __file__, "--child", json.dumps(size)], capture_output=True, text=True,
                         env=os.environ | {"OMP_NUM_THREADS": "1"})
    if run.returncode:
        why = (run.stderr.strip() or "killed: out of memory?").splitlines()[-1]
        sys.exit(f"{key}: the measurement ended with status {run.returncode}: {why[:200]}")
    point = json.loads(run.stdout.splitlines()[-1]) | {"code": code}
    keep({key: point}, file)
    return point


def keep(points, file=FILE):
    """Add points to `file`, as it is by now: another run may have added some meanwhile."""
    stored = (json.loads(file.read_text()) if file.exists() else {}) | points
    half = file.with_suffix(f".{os.getpid()}.tmp")
    half.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(stored.items())) + "\n}\n")
    os.replace(half, file)


def exponent(sizes, costs):
    """Slope of log cost over log size, by least squares."""
    x, y = ([math.log(v) for v in values] for values in (sizes, costs))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def sweep(quick=False, file=FILE):
    """{sweep: {"seconds": exponent, "memory": exponent}}; prints each point as it comes."""
    found = {}
    for name, (axis, sizes, rest, must) in SWEEPS.items():
        if quick and name not in QUICK:
            continue
        sizes, rest = (QUICK[axis], QUICK_REST) if quick else (sizes, rest)
        points = []
        for size in sizes:
            p = measure(file, **{**rest, axis: size}, epochs=2)
            points.append(p)
            print(f"{name:16s} {axis} = {size:5d} {p['cpu_s']:9.3f} s CPU {p['wall_s']:9.3f} s {p['memory_mb']:8.0f} MB",
                  flush=True)
        # 1 MB: a tiny size may fit into what the process held already.
        slopes = {kind: [exponent(sizes[i:], [max(p[unit], low) for p in points[i:]]) for i in (0, len(sizes) - 2)]
                  for kind, unit, low in (("seconds", "cpu_s", 1e-4), ("memory", "memory_mb", 1))}
        found[name] = {kind: slope[0] for kind, slope in slopes.items()}
        print(f"{name:16s} seconds ~ {axis}^{slopes['seconds'][0]:.2f} (last doubling {slopes['seconds'][1]:.2f}), memory ~ "
              f"{axis}^{slopes['memory'][0]:.2f} (last {slopes['memory'][1]:.2f}); expected: {must}", flush=True)
    return found


def hard():
    """{shape: point} of one epoch each, start included, at the default width and views; prints each as it comes."""
    found = {}
    for name, (N, measured, T, D, g, batch, keys) in HARD.items():
        p = found[name] = measure(N=measured, T=T, D=D, V=2, g=min(g, measured), epochs=1, batch_size=batch, max_keys=keys)
        ok = "within" if p["whole_mb"] < GB * 1024 else "NOT WITHIN"
        note = "" if measured == N else (f"; measured on {measured} of {N} samples; EXTRAPOLATED to an epoch: "
                                         f"{p['cpu_s'] * N / measured / 60:.0f} min CPU")
        print(f"{name} ({N} x {T} x {D}), batches of {batch}: {p['cpu_s']:.1f} s CPU, {p['wall_s']:.1f} s, peak "
              f"{p['whole_mb']:.0f} MB of the process ({p['memory_mb']:.0f} MB training), {ok} {GB} GB{note}", flush=True)
    return found


def keys(name="StandWalkJump", epochs=10):
    """{max_keys: (mean error of S, share of mask entries that differ)} on real data, by the network of an exact run."""
    sys.path.insert(0, str(ROOT))
    import torch
    from emtc import EMTC
    from uea_loader import DataError, load
    folder = ROOT.parent / "shared" / "data"
    try:
        X = load(name, data_dir=folder if folder.is_dir() else None, download=False).X
    except DataError as error:
        sys.exit(f"scaling.py: error: {error}")
    model = EMTC(3, epochs=epochs, device="cpu").fit(X)
    X, found = (X - X.mean((0, 1))) / X.std((0, 1)), {}                  # as fit does it: no value is missing here
    x = torch.from_numpy(X).transpose(1, 2).contiguous()                 # (N, D, T)
    seen = torch.ones_like(x, dtype=torch.bool)
    with torch.no_grad():
        S = model.net_.importance(x, seen)                               # (N, D, T)
    M = S >= model.epsilon
    for limit in KEYS:
        model.net_.importance.max_keys = limit
        with torch.no_grad():
            rough = model.net_.importance(x, seen)                       # (N, D, T)
        found[limit] = float((rough - S).abs().mean()), float(((rough >= model.epsilon) != M).float().mean())
        keep({f"{name} max_keys={limit}": {"error_of_S": found[limit][0], "mask_differs": found[limit][1]}})
        print(f"{name}, T = {X.shape[1]}: max_keys = {limit:5d}: mean |S - exact| {found[limit][0]:.4f}, mask differs in "
              f"{found[limit][1]:.2%} of the entries ({1 - M.float().mean():.1%} are masked)", flush=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(**json.loads(sys.argv[2]))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, under half a minute")
    parser.add_argument("--hard", action="store_true", help="the paper's three hardest shapes instead")
    parser.add_argument("--keys", action="store_true", help="the error of max_keys on StandWalkJump instead")
    args = parser.parse_args()
    if args.hard:
        hard()
    elif args.keys:
        keys()
    elif args.quick:
        with tempfile.TemporaryDirectory() as folder:  # its points are none to keep
            sweep(True, Path(folder) / FILE.name)
    else:
        sweep()
