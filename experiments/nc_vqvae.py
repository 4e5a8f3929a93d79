"""NC-VQVAE's next checks: the augmentation, the codes that the prior starts from, the SSL weights.

Stage 1 and the prior see the training series only, each for --epochs passes; labels enter the prior
by class, the 5-NN probe and the classifier behind FID and IS, never stage 1. Last epoch, nothing
picked by a score. All priors are the same MaskGIT. MSE: squared error of the test series as the
codes give them back, in z-scored units, so that 1 is what the mean alone would reach.
"""

import functools
import math
import sys

import generation
import numpy as np
import store

from related.nc_vqvae import NCVQVAE
from related.second_view import SSL

DATA = ("RacketSports",)
SIZE = {"dim": 16, "n_res": 1, "projector_width": 128, "lr": 3e-3}  # half of the defaults
SAMPLES = 256  # series that a prior draws
PLAIN, BARLOW = {"ssl": "none"}, {"ssl": "barlow", "augment": "slice"}
AUGMENTATION = {  # one thing at a time: loss, augmentation, the second view's reconstruction
    "real series": None,
    "untrained": {**PLAIN, "epochs": 0},
    "plain VQVAE": PLAIN,
    "slice, rebuilt only": {**PLAIN, "augment": "slice", "aug_weight": 0.1},
    "warp, rebuilt only": {**PLAIN, "augment": "warp", "aug_weight": 0.1},
    "Barlow Twins, no augmentation": {"ssl": "barlow", "augment": "none"},
    "Barlow Twins, slice": BARLOW,
    "Barlow Twins, slice not rebuilt": {**BARLOW, "aug_weight": 0.0},
    "Barlow Twins, warp": {"ssl": "barlow", "augment": "warp"},
    "VIbCReg, slice": {"ssl": "vibcreg", "augment": "slice"},
    "VIbCReg, warp": {"ssl": "vibcreg", "augment": "warp"},
}
PRIOR = {f"{name} codes": {"codes": name} for name in ("frozen", "tuned", "random")}


def weighted(ssl, place=0, value=None):
    """Options of NCVQVAE with one of the loss's weights changed, by its place in SSL."""
    weights = list(SSL[ssl][1])
    weights[place] = weights[place] if value is None else value
    return {"ssl": ssl, "augment": "slice", "ssl_weights": tuple(weights)}


TERMS = {"invariance": 2500, "variance": 2500, "covariance": 100}  # a hundred times their weights
WEIGHTS = (
    {f"Barlow Twins, weight {w:g}": weighted("barlow", 0, w) for w in (0, 0.1, 1, 10, 100, 1000)}
    | {f"Barlow Twins, lambda {x:g}": weighted("barlow", 1, x) for x in (0, 0.5)}
    | {"VICReg": weighted("vicreg")}
    | {f"VICReg, {name} {x:g}": weighted("vicreg", place, x)
       for place, (name, high) in enumerate(TERMS.items(), 1) for x in (0, high)}
)  # fmt: skip
STUDIES = {
    "augmentation": (AUGMENTATION, ("5NN", "5NN z", "MSE", "FID", "IS", "TSTR")),
    "prior": (PRIOR, ("loss half way", "loss", "FID", "IS", "diversity", "TSTR")),
    "weights": (WEIGHTS, ("MSE", "5NN", "5NN z", "codes used")),
}
HALVES = {}  # {name: Halves}, since the cache wants arguments that hash


@functools.lru_cache(maxsize=8)
def stage_one(name, seed, options):
    """Stage 1, once for all priors over the same codes; options: pairs of NCVQVAE's settings."""
    return NCVQVAE(seed=seed, device="cpu", **SIZE, **dict(options)).fit(HALVES[name].train[0])


def probe(model, halves):
    """5-NN on pooled codes and on pooled z, and how well the test series come back."""
    (X, y), (X_test, y_test) = halves.train, halves.test
    out, z = {}, model.scale_(X_test)
    for readout, column in (("continuous", "5NN z"), ("codes", "5NN")):
        model.readout = readout
        rows = model.transform(X), y, model.transform(X_test), y_test
        out[column] = generation.knn_accuracy(*rows)
    share = np.bincount(model.encode(X_test).ravel(), minlength=model.n_codes)
    share = share[share > 0] / share.sum()
    out["MSE"] = float(((model.scale_(model.decode(model.encode(X_test))) - z) ** 2).mean())
    return out | {"codes used": math.exp(-(share * np.log(share)).sum())}  # perplexity


def generated(model, halves, seed, epochs, codes="frozen"):
    """Scores of what a prior over the model's codes draws, and its loss."""
    X, y = halves.train
    model.fit_prior(X, y, epochs=epochs, lr=3e-3, dim=32, n_layers=2, codes=codes)
    history = [record["loss"] for record in model.prior_history_]
    drawn = model.generate(max(SAMPLES, len(halves.test[0])))
    out = generation.compare(drawn, model.generate(len(y), y), halves, seed)
    return out | {"loss half way": history[len(history) // 2], "loss": history[-1]}


def run(args, halves, study, options, seed):
    """One record."""
    HALVES[halves.name] = halves
    if options is None:
        return generation.compare(halves.train[0], halves.train[0], halves, seed)
    settings = {"epochs": args.epochs, **(BARLOW if study == "prior" else options)}
    model = stage_one(halves.name, seed, tuple(settings.items()))
    if study == "prior":
        return generated(model, halves, seed, args.epochs, **options)
    found = probe(model, halves)
    if study == "augmentation" and settings["epochs"]:
        found |= generated(model, halves, seed, args.epochs)
    return found


def main(argv=None):
    modules = ("common", "nc_vqvae", "second_view", "maskgit")
    generation.conduct("nc_vqvae", __doc__, argv, STUDIES, run, modules, DATA, 40)


if __name__ == "__main__":
    sys.exit(store.run_main(main))
