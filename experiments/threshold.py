"""How much is redundant? A sweep of epsilon, the threshold of Eq. (3): share kept, ACC, NMI at the last epoch.

epsilon = 0 keeps every value, epsilon = 1 one timestamp of each variate. If what IVM masks were redundant, ACC
would stay up as the share kept goes down.

    python experiments/threshold.py
"""

import sys

import common
import recorded
import studies

GRID, QUICK = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1), (0, 0.4, 0.8, 1)


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("threshold", __doc__, argv, data=common.STUDY, options={"--grid": dict(
        nargs="+", type=float, metavar="E", help="values of epsilon, to which EMTC's own is added")})
    default = recorded.defaults()["epsilon"]
    grid = {f"{e:g}": e for e in sorted({*(args.grid or (QUICK if args.quick else GRID)), default})}
    store = studies.fill(args, {name: {"epsilon": e} for name, e in grid.items()})
    table = studies.finish(store, control=f"{default:g}", shown=("kept", "ACC", "NMI"))
    common.picture(args, lambda figure, axes: studies.curves(
        figure, axes, table, {v: float(v) for v in sorted(studies.methods(table), key=float)}, ("kept", "ACC", "NMI"),
        "threshold epsilon", default), ncols=3, height=4.2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
