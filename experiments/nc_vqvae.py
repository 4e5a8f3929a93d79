"""NC-VQVAE's claim: with a non-contrastive loss a VQVAE has better codes and generates better.

    python experiments/nc_vqvae.py            # fills results/nc_vqvae.json, resumable
    python experiments/nc_vqvae.py --table    # prints what is there
    python experiments/nc_vqvae.py --steps 1000 --data GunPoint NATOPS   # longer; in results/nc_vqvae_1000.json

Plain VQVAE, NC-VQVAE (Barlow Twins with slice-and-shuffle, the paper's headline; VIbCReg with
window warp) and the untrained encoder, the same number of steps for each, then the same MaskGIT
prior. Stage 1 and the prior see the training series, the test series only score; labels enter the
prior by class, the probes and the classifier behind FID and IS, never stage 1. Last step, no
selection.
"""
import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from related import generation_scores as gs
from related.common import load_splits
from related.nc_vqvae import NCVQVAE

DATA = ("GunPoint", "ItalyPowerDemand", "ArrowHead", "OSULeaf", "BasicMotions")
VARIANTS = {"untrained": {"ssl": "none"}, "plain VQVAE": {"ssl": "none"},
            "Barlow, slice": {"ssl": "barlow", "augment": "slice"},
            "VIbCReg, warp": {"ssl": "vibcreg", "augment": "warp"}}
COLUMNS = {"knn_codes": "5-NN codes", "linear_codes": "linear codes", "knn_continuous": "5-NN z",
           "linear_continuous": "linear z", "fid": "FID", "is": "IS", "tstr": "TSTR"}
STEPS, BATCH, SAMPLES = 400, 32, 256


def stem(steps):
    """Name of the files of runs of so many steps; the default's has no number."""
    return "nc_vqvae" if steps == STEPS else f"nc_vqvae_{steps}"


def paths(steps):
    """The scores, and six series per variant of seed 0 for the figures."""
    return [ROOT / "results" / f"{stem(steps)}{end}.json" for end in ("", "_samples")]


def epochs(steps, n):
    """Passes over n series that make at least `steps` steps."""
    return math.ceil(steps / math.ceil(n / BATCH))


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def write(path, content, indent=1):
    """Whole file or none."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=indent) + "\n")
    os.replace(part, path)


def one_run(variant, train, test, fcn, seed, steps):
    """(scores, six generated series as lists or None) of one variant and seed."""
    trained = variant != "untrained"
    start = time.perf_counter()
    model = NCVQVAE(epochs=epochs(steps, len(train.X)) if trained else 0, seed=seed,
                    batch_size=BATCH, device="cpu", **VARIANTS[variant])
    out = gs.probe(model.fit(train.X), train, test)
    if not trained:
        return out, None
    model.fit_prior(train.X, train.y, epochs(steps, len(train.X)), BATCH)
    out |= gs.judge(model, train, test, fcn, SAMPLES)
    out |= {"rec": model.history_[-1]["rec"], "prior_loss": model.prior_history_[-1]["loss"],
            "seconds": time.perf_counter() - start}
    return out, model.generate(6)[:, :, 0].round(3).tolist()


def fill(names, seeds, folders, steps):
    """Run what is missing; saves after each run."""
    out, samples = paths(steps)
    settings = {"steps": steps, "prior_steps": steps, "batch_size": BATCH,
                "samples": f"max({SAMPLES}, test series)"}
    content = read(out) or {"settings": settings, "runs": {}}
    if content["settings"] != settings:
        sys.exit(f"error: {out} has runs with {content['settings']}, not {settings}; move it away")
    runs = content["runs"]
    for seed in seeds:
        for name in names:
            key = lambda variant: f"{name}/{variant}/{seed}"
            missing = [v for v in (*VARIANTS, "real") if key(v) not in runs]
            if not missing:
                continue
            train, test = load_splits(name, folders)
            fcn = gs.fit_fcn(gs.ZScore(train.X)(train.X), train.y, seed=seed, device="cpu")
            for variant in missing:
                if variant == "real":
                    row, series = gs.reference(train, test, fcn), train.X[:, :, 0]
                    series = series[np.linspace(0, len(series) - 1, 6).astype(int)].tolist()
                else:
                    row, series = one_run(variant, train, test, fcn, seed, steps)
                runs[key(variant)] = {k: round(v, 5) for k, v in row.items()}
                write(out, content)
                if seed == 0 and series:
                    write(samples, read(samples) | {f"{name}/{variant}": series}, indent=None)
                print(key(variant), runs[key(variant)], flush=True)


def figures(steps):
    """figures/nc_vqvae_<data>.png: training series beside each variant's samples."""
    drawn = read(paths(steps)[1])
    for name in dict.fromkeys(key.split("/")[0] for key in drawn):
        groups = {v: np.array(drawn[f"{name}/{v}"])[:, :, None]
                  for v in ("real", *VARIANTS) if f"{name}/{v}" in drawn}
        gs.draw(groups, ROOT / "figures" / f"{stem(steps)}_{name}.png")


def cell(values):
    values = [v for v in values if v is not None]
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "-"


def table(steps):
    """Markdown text: mean ± population standard deviation over seeds; then SSL's wins over plain."""
    out, _ = paths(steps)
    content = read(out)
    if not content:
        sys.exit(f"error: {out} does not exist; run without --table first")
    runs = content["runs"]
    names = list(dict.fromkeys(key.split("/")[0] for key in runs))
    seeds = sorted({int(key.split("/")[2]) for key in runs})
    value = lambda name, variant, seed, column: runs.get(f"{name}/{variant}/{seed}", {}).get(column)
    of = content["settings"]
    lines = [f"Mean ± population standard deviation over seeds {', '.join(map(str, seeds))}; {of['steps']} steps, "
             f"{of['prior_steps']} of the prior, batches of {of['batch_size']}; {of['samples']} series drawn.",
             "", f"| data | variant | seeds | {' | '.join(COLUMNS.values())} |",
             f"|---|---|---|{'---|' * len(COLUMNS)}"]
    for name in names:
        for variant in (*VARIANTS, "real"):
            cells = [cell([value(name, variant, s, c) for s in seeds]) for c in COLUMNS]
            n_seeds = sum(f"{name}/{variant}/{s}" in runs for s in seeds)
            lines.append(f"| {name} | {variant} | {n_seeds} | {' | '.join(cells)} |")
    lines += ["", f"| better than plain VQVAE | {' | '.join(COLUMNS.values())} |", f"|---|{'---|' * len(COLUMNS)}"]
    for variant in ("Barlow, slice", "VIbCReg, warp"):
        cells = []
        for column in COLUMNS:
            sign = -1 if column == "fid" else 1  # FID: lower is better
            pairs = {n: [(value(n, variant, s, column), value(n, "plain VQVAE", s, column))
                         for s in seeds] for n in names}
            gains = {n: [sign * (a - b) for a, b in rows if a is not None and b is not None]
                     for n, rows in pairs.items()}
            runs_won = [gain > 0 for rows in gains.values() for gain in rows]
            sets_won = [np.mean(rows) > 0 for rows in gains.values() if rows]
            cells.append(f"{sum(sets_won)} of {len(sets_won)} sets, {sum(runs_won)} of "
                         f"{len(runs_won)} runs")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description="NC-VQVAE against the plain VQVAE under one prior.")
    p.add_argument("--table", action="store_true", help="print the stored results and stop")
    p.add_argument("--data", nargs="+", default=DATA)
    p.add_argument("--steps", type=int, default=STEPS, help="of stage 1 and of the prior (default: %(default)s)")
    p.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    p.add_argument("--data-dir", nargs="+", help="folders to look in, e.g. .../aeon/datasets/data")
    args = p.parse_args()
    if args.steps < 1:
        p.error(f"argument --steps: {args.steps} is not a number of steps; need 1 or more")
    if args.table:
        return print(table(args.steps))
    torch.set_num_threads(1)  # so that a run repeats bit for bit on machines of any number of cores
    try:
        fill(args.data, args.seeds, args.data_dir, args.steps)
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    try:
        figures(args.steps)
    except ImportError:
        print("no figures: matplotlib is not installed (pip install matplotlib)")


if __name__ == "__main__":
    main()
