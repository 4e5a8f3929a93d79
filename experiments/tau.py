"""Sensitivity to the temperature tau of Eq. (11) and the loss weights alpha and beta of Eq. (13).

Each is varied alone, by the factors below, around EMTC's default; ACC and NMI at the last epoch.

    python experiments/tau.py
"""

import sys

import common
import recorded
import studies

FACTORS = {"tau": (0.2, 0.5, 1, 2, 5, 10), "alpha": (0.01, 0.1, 1, 10, 100), "beta": (0.01, 0.1, 1, 10, 100)}


def settings(defaults, quick):
    """{option: {variant: value}}; the default's variant is "default", one run for all three. quick: ends only."""
    return {option: {"default" if f == 1 else f"{option} {f * defaults[option]:.3g}": f * defaults[option]
                     for f in ((factors[0], 1, factors[-1]) if quick else factors)}
            for option, factors in FACTORS.items()}


def draw(figure, axes, table, values, defaults):
    """One panel an option: ACC over its values, on a logarithmic axis."""
    for axis, (option, row) in zip(axes, values.items()):
        studies.curves(figure, [axis], table, row, ["ACC"], option, defaults[option])
        studies.log_axis(axis, list(row.values()))
        axis.set(xlabel={"tau": "temperature tau", "alpha": "alpha, weight of intra",
                         "beta": "beta, weight of inter"}[option])


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("tau", __doc__, argv, data=common.STUDY)
    defaults = recorded.defaults()
    values = settings(defaults, args.quick)
    variants = {"default": {}} | {v: {option: x} for option, row in values.items() for v, x in row.items()
                                  if v != "default"}
    table = studies.finish(studies.fill(args, variants), control="default", values=values)
    common.picture(args, lambda figure, axes: draw(figure, axes, table, values, defaults), ncols=3, height=4.2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
