"""What only a GPU can say, printed, and written into benchmarks/gpu.md with the card's name.

    python benchmarks/gpu.py                       k-means of a million points, the hardest shapes
    python benchmarks/gpu.py --device cpu --tiny   tiny sizes, anywhere; writes nothing

An epoch is the second one, at the default width and views, in float32 and under bfloat16 autocast;
memory is the peak that torch allocated. Made data: a cost does not depend on the values.
"""

import argparse
import datetime
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
from emtc import EMTC  # noqa: E402
from kmeans import kmeans  # noqa: E402
from support.files import write  # noqa: E402

KMEANS = (1_000_000, 64, 100)  # N, d, k
SHAPES = {  # N, T, D, g, batch_size, max_keys
    "EigenWorms": (131, 17984, 6, 5, 16, 1024),
    "EigenWorms, exact": (131, 17984, 6, 5, 8, 17984),
    "DuckDuckGeese": (50, 270, 1345, 5, 16, 1024),
    "PEMS-SF": (173, 144, 963, 7, 16, 1024),
}


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory(device):
    """Peak MB that torch allocated on a GPU since the last call; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def kmeans_row(device, N, d, k):
    X = torch.randn(N, d, generator=torch.Generator().manual_seed(0)).to(device)
    kmeans(X[:1000], min(k, 10))  # the start of the libraries
    memory(device)
    start = clock(device)
    found = kmeans(X, k)
    seconds = clock(device) - start
    return f"k-means, {N} x {d}, k = {k}", seconds, memory(device), f"{found.n_iter} iterations"


def epoch_row(device, name, N, T, D, g, batch, keys, half):
    ticks, what = [], f"one epoch, {name} ({N} x {T} x {D})" + half * ", bfloat16"
    X = torch.randn(N, T, D, generator=torch.Generator().manual_seed(0))
    options = dict(epochs=2, patience=3, batch_size=batch, max_keys=keys, n_starts=1)
    memory(device)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            model = EMTC(g, device=str(device), **options)
            model.fit(X, on_epoch=lambda *_: ticks.append(clock(device)))
    except RuntimeError as error:  # out of memory, or an operation that a card lacks
        return what, None, None, str(error).splitlines()[0][:120]
    return what, ticks[1] - ticks[0], memory(device), ""


def rows(device, tiny):
    yield kmeans_row(device, *((2000, 8, 10) if tiny else KMEANS))
    for name, shape in {"tiny": (8, 16, 2, 2, 4, 8)}.items() if tiny else SHAPES.items():
        for half in (False, True):
            yield epoch_row(device, name, *shape, half)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, nothing written")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: error: no CUDA device here; use --device cpu --tiny", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [f"# {card}, {datetime.date.today()}, torch {torch.__version__}", ""]
    lines += ["| what | seconds | peak MB | |", "|---|---|---|---|"]
    for what, seconds, peak, note in rows(device, args.tiny):
        numbers = "- | -" if seconds is None else f"{seconds:.3g} | {peak:.0f}"
        lines.append(f"| {what} | {numbers} | {note} |")
        print(lines[-1], flush=True)
    if not args.tiny:
        write(HERE / "gpu.md", "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
