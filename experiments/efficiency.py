"""What does EMTC cost? Parameters, time an epoch and peak memory against T and N, on made data.

Each point is a process of its own on one CPU thread, so that its peak memory is its own; the memory given is what
it needs beyond a process that fits the smallest problem. Once with IVM, whose attention grows with T^2, and once
without. Times are worth their ratios only: they are of this machine, on this day. --data changes nothing here,
--seeds gives the repetitions (medians are reported), --epochs how many epochs a time is the median of.

    python experiments/efficiency.py
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import common
import recorded
import studies
from emtc import EMTC

D, G, N0, T0 = 6, 4, 64, 128
SWEEPS = {"T": [(N0, T) for T in (64, 128, 256, 512, 1024, 2048)],
          "N": [(N, T0) for N in (32, 64, 128, 256, 512, 1024)]}
QUICK = {"T": [(16, 32), (16, 128)], "N": [(16, 32), (64, 32)]}
PARTS = {"EMTC": (), "without IVM": ("ivm",)}
SMALLEST = (8, 16)


def made(N, T, seed):
    """Noisy sines of G frequencies, (N, T, D) float32."""
    rng = np.random.default_rng(seed)
    frequency = (1 + np.arange(N) % G)[:, None, None] * np.arange(T)[None, :, None] / T   # (N, T, 1)
    return (np.sin(2 * np.pi * (frequency + rng.random((N, 1, D)))) + rng.normal(size=(N, T, D)) / 2).astype(np.float32)


def peak_mib():
    """Highest memory of this process so far, MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 ** 2 if sys.platform == "darwin" else 1024)


def measure(N, T, epochs, seed, drop=()):
    """{"parameters", "epoch_seconds", "peak_mib"} of this process; the first epoch is not counted."""
    torch.set_num_threads(1)
    ticks = []
    model = EMTC(G, epochs=epochs + 1, seed=seed, drop=drop, patience=epochs + 2, device="cpu")
    model.fit(made(N, T, seed), on_epoch=lambda *_: ticks.append(time.perf_counter()))
    trained = (p.numel() for p in model.net_.parameters() if p.grad is not None)
    return {"parameters": sum(trained), "peak_mib": peak_mib(),
            "epoch_seconds": statistics.median(b - a for a, b in zip(ticks, ticks[1:]))}


def point(N, T, epochs, seed, drop):
    """`measure` in a process of its own."""
    order = [sys.executable, str(Path(__file__).resolve()), "--point", json.dumps([N, T, epochs, seed, drop])]
    done = subprocess.run(order, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise common.UserError(f"the process for N {N}, T {T} failed: {last}")
    return json.loads(done.stdout)


def slope(x, y):
    """Exponent of y ~ x^k, by least squares on the logarithms; None where a value is missing or not positive."""
    if len(x) < 2 or any(v is None or v <= 0 for v in y):
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def facts(runs, sweeps):
    """{sweep: {part: {"N", "T", "parameters", "epoch_seconds", "extra_mib", exponents}}}, medians over the seeds."""
    def median(N, T, part, name):
        values = [r[name] for r in runs if r["variant"] == f"{part} {N}x{T}" and r[name] is not None]
        return statistics.median(values) if values else None
    floor, out = median(*SMALLEST, "EMTC", "peak_mib"), {}
    for sweep, sizes in sweeps.items():
        for part in PARTS:
            row = {"N": [N for N, _ in sizes], "T": [T for _, T in sizes]}
            for name in ("parameters", "epoch_seconds", "peak_mib"):
                row[name] = [median(N, T, part, name) for N, T in sizes]
            row["extra_mib"] = [None if m is None or floor is None else m - floor for m in row.pop("peak_mib")]
            half = len(sizes) // 2  # the larger half: small sizes measure the fixed costs
            for name in ("epoch_seconds", "extra_mib"):
                row[f"{name}_exponent"] = slope(row[sweep][half:], row[name][half:])
            out.setdefault(sweep, {})[part] = row
    return out


def draw(axes, table):
    """Time and memory against T and N on logarithmic axes."""
    for column, (sweep, parts) in enumerate(table.items()):
        for k, (part, row) in enumerate(parts.items()):
            for axis, name in zip(axes[:, column], ("epoch_seconds", "extra_mib")):
                at = [(x, v) for x, v in zip(row[sweep], row[name]) if v is not None and v > 0]
                if at:  # else the system reports no memory, or less than a page
                    power = row[f"{name}_exponent"]
                    label = part + ("" if power is None else f", ~ {sweep}^{power:.1f} in the larger half")
                    axis.plot(*zip(*at), color=common.COLOURS[k], marker="os"[k], label=label)
        other = "T" if sweep == "N" else "N"
        axes[0, column].set_title(f"against {sweep} ({other} = {next(iter(parts.values()))[other][0]}, D = {D})")
        for axis, label in zip(axes[:, column], ("seconds an epoch", "peak memory, MiB more")):
            studies.log_axis(axis, parts["EMTC"][sweep])
            axis.set(ylabel=label, xlabel={"T": "T, timestamps", "N": "N, samples"}[sweep])
            if axis.lines:
                axis.set_yscale("log")
                axis.legend(fontsize=8, framealpha=0.6)


def main(argv=None):
    """Measure, print, save, draw; returns 0."""
    if argv is None and sys.argv[1:2] == ["--point"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
        return 0
    args = common.arguments("efficiency", __doc__, argv, epochs=3, quick_epochs=2, data=["BasicMotions"])
    if args.epochs < 1:
        raise common.UserError("--epochs 0 has no time to measure; give 1 or more")
    sweeps = QUICK if args.quick else SWEEPS
    store = common.Store(args, code=recorded.CODE, **recorded.settings(args))
    work = [(SMALLEST, "EMTC"), *((size, part) for size in dict.fromkeys(s for row in sweeps.values() for s in row)
                                  for part in PARTS)]
    for number, ((N, T), part) in enumerate(work, 1):
        for seed in args.seeds:
            if store.get("made", f"{part} {N}x{T}", seed, "made") is None:
                with common.timer() as seconds:
                    found = point(N, T, args.epochs, seed, PARTS[part])
                store.add("made", f"{part} {N}x{T}", seed, "made", seconds(), N=N, T=T, **found)
        print(f"[{number:2d}/{len(work)}] {part}, N {N}, T {T}: "
              f"{statistics.median(r['epoch_seconds'] for r in store.runs if r['variant'] == f'{part} {N}x{T}'):.3f} "
              "s an epoch", flush=True)
    table = facts(store.runs, sweeps)
    store.finish(table=table)
    number = lambda v, text: "-" if v is None else text.format(v)  # noqa: E731
    common.print_table(["part", "N", "T", "parameters", "s an epoch", "ratio", "peak MiB more"],
                       [[part, N, T, p, f"{s:.3f}", f"{s / row['epoch_seconds'][0]:.1f}", number(m, "{:.0f}")]
                        for parts in table.values() for part, row in parts.items() for N, T, p, s, m in
                        zip(*(row[c] for c in ("N", "T", "parameters", "epoch_seconds", "extra_mib")))])
    common.picture(args, lambda figure, axes: draw(axes, table), height=6, nrows=2, ncols=2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
