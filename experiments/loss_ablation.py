"""The paper's ablation of its losses: each of the three terms of Eq. (13) left out, and each alone.

contra: cluster-guided contrast, Eq. (10); intra: reconstruction of the input, Eq. (5); inter: of one view from
another, Eq. (6). Last epoch, no labels.

    python experiments/loss_ablation.py
"""

import sys

import common
import studies

TERMS = ("contra", "intra", "inter")
VARIANTS = {"EMTC": {}, **{f"without {t}": {"drop": (t,)} for t in TERMS},
            **{f"only {t}": {"drop": tuple(o for o in TERMS if o != t)} for t in TERMS}}


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("loss_ablation", __doc__, argv, data=common.STUDY)
    table = studies.finish(studies.fill(args, VARIANTS), control="EMTC")
    hollow = [v for v in VARIANTS if v.startswith("only")]
    common.picture(args, lambda figure, axes: studies.panels(figure, axes, table, hollow=hollow),
                   height=studies.height(table, len(VARIANTS)), ncols=2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
