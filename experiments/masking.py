"""The paper's masking strategies (Fig. 3): evolving against random, uniform, variance, frequency and none.

All keep the same share of the values: the evolving mask is trained first, and each static one then keeps the share
that it ended with, on that data set with that seed. Last epoch, no labels.

    python experiments/masking.py
"""

import sys

import common
import recorded
import studies
from emtc import MASKS

KINDS = ("evolving", *(kind for kind in MASKS if kind not in ("evolving", "none")), "none")


def run(args, dataset, kind, seed):
    """One record; the evolving run before it is a stored one."""
    evolving = recorded.run(args, dataset, seed)
    if kind == "evolving":
        record = evolving
    elif kind == "none":  # the same run as ablation.py's
        record = recorded.run(args, dataset, seed, drop=("ivm",))
    else:
        record = recorded.run(args, dataset, seed, mask=kind, keep=evolving["kept"])
    return recorded.without(record, "curves", "labels")


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("masking", __doc__, argv, data=common.STUDY)
    store = common.Store(args, code=recorded.CODE, **recorded.settings(args))
    common.sweep(store, args, KINDS, lambda *work: run(args, *work))
    table = studies.finish(store, control="evolving", shown=("ACC", "NMI", "kept"))
    common.picture(args, lambda figure, axes: studies.panels(figure, axes, table),
                   height=studies.height(table, len(KINDS)), ncols=2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
