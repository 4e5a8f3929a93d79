"""What only a GPU can say, written into benchmarks/RESULTS.md with the card's name.

    python benchmarks/gpu.py                       the tests, k-means of a million points, the three hard shapes
    python benchmarks/gpu.py --device cpu --tiny   the same code on tiny sizes: shows that it runs, writes nothing

An epoch is the second one, with exact attention, at the default width and views, in float32 and under bfloat16
autocast; memory is the peak that torch allocated. Made data (normal noise): a cost does not depend on the values.
"""

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from emtc import EMTC  # noqa: E402
from kmeans import kmeans  # noqa: E402
from scaling import HARD  # noqa: E402

KMEANS = (1_000_000, 64, 100)  # N, d, k


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory(device):
    """Peak MB that torch allocated on a GPU since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2 ** 20
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def kmeans_row(device, N, d, k):
    X = torch.randn(N, d, generator=torch.Generator().manual_seed(0)).to(device)
    kmeans(X[:1000], min(k, 10))  # the start of the libraries
    memory(device)
    start = clock(device)
    found = kmeans(X, k)
    return f"kmeans, {N} x {d}, k = {k}, n_init = 10", clock(device) - start, memory(device), f"{found.n_iter} iterations"


def epoch_row(device, name, N, T, D, g, batch, half):
    """The second epoch, so that the start does not count."""
    ticks = []
    X = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        model = EMTC(g, epochs=2, patience=3, batch_size=batch, device=str(device))
        memory(device)
        model.fit(X, on_epoch=lambda *_: ticks.append(clock(device)))
    return f"one epoch, {name} ({N} x {T} x {D})" + half * ", bfloat16", ticks[1] - ticks[0], memory(device), ""


def rows(device, tiny):
    yield kmeans_row(device, *((2000, 8, 10) if tiny else KMEANS))
    for name, (N, _, T, D, g, batch, keys) in HARD.items():
        for half in (False, True) if keys is None else ():
            size = (16, 64, 4, 2, 8) if tiny else (N, T, D, g, batch)
            try:
                yield epoch_row(device, name, *size, half)
            except RuntimeError as error:  # out of memory, or an operation that a card lacks
                yield f"one epoch, {name}" + half * ", bfloat16", None, None, str(error).splitlines()[0][:120]


def tests():
    """The last line of pytest on this machine; EMTC takes the GPU by itself."""
    run = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=HERE.parent, capture_output=True, text=True)
    return (run.stdout.strip().splitlines() or ["pytest did not start"])[-1]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, no tests, nothing written")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: error: no CUDA device here; --device cpu --tiny shows that it runs", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [f"## {card}", "", f"{datetime.date.today()}, torch {torch.__version__}", "",
             "| what | seconds | peak MB | |", "|---|---|---|---|"]
    for what, seconds, peak, note in rows(device, args.tiny):
        shown = ("-" if v is None else form % v for form, v in (("%.3g", seconds), ("%.0f", peak)))
        lines.append(f"| {what} | {' | '.join(shown)} | {note} |")
        print(lines[-1], flush=True)
    if not args.tiny:
        lines += ["", f"`python -m pytest`: {tests()}"]
        part = HERE / "RESULTS.part"
        part.write_text("# On a GPU\n\n`python benchmarks/gpu.py`\n\n" + "\n".join(lines) + "\n")
        os.replace(part, HERE / "RESULTS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
