"""The paper's ablation of its components (Table 3): the whole, without IVM, without MEV, without both.

Without IVM nothing is masked, without MEV there is one view. Last epoch, no labels.

    python experiments/ablation.py
"""

import sys

import common
import studies

VARIANTS = {"EMTC": {}, "without IVM": {"drop": ("ivm",)}, "without MEV": {"drop": ("mev",)},
            "without both": {"drop": ("ivm", "mev")}}


def main(argv=None):
    """Train, print, save, draw; returns 0."""
    args = common.arguments("ablation", __doc__, argv, data=common.STUDY)
    table = studies.finish(studies.fill(args, VARIANTS), control="EMTC")
    common.picture(args, lambda figure, axes: studies.panels(figure, axes, table),
                   height=studies.height(table, len(VARIANTS)), ncols=2)
    return 0


if __name__ == "__main__":
    sys.exit(common.run_main(main))
