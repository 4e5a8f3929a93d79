"""How many views? Eq. (4) leaves V open; the ACC, NMI and parameters of V = 1 to 5, at the last epoch.

    python experiments/views.py
"""

import sys

import common
import recorded
import studies

VIEWS = (1, 2, 3, 4, 5)


def draw(figure, axes, table, default):
    """ACC and NMI against the number of views."""
    studies.curves(figure, axes, table, {str(V): V for V in VIEWS}, ("ACC", "NMI"), "number of views V", default)
    for axis in axes:
        axis.set_xticks(VIEWS)


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("views", __doc__, argv, data=common.STUDY)
    # one view is ablation.py's "without MEV": the same run, which need not be trained twice
    variants = {str(V): {"n_views": V} if V > 1 else {"drop": ("mev",)} for V in VIEWS}
    store, default = studies.fill(args, variants), recorded.defaults()["n_views"]
    table = studies.finish(store, control=str(default), metrics=(*common.METRICS, "kept", "parameters"))
    common.picture(args, lambda figure, axes: draw(figure, axes, table, default), ncols=2, height=4.2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
