"""Score a trained DeepLabV3, or masks of any origin, against true masks with a margin in mm.

    python evaluate_w_margin.py --load RUN --input FOLDER --spacing FILE.csv
    python evaluate_w_margin.py --predictions MASKS --input FOLDER --spacing FILE.csv

Write files.xlsx, files.csv, calibration.png, sweep.png and summary.json to results/deeplab/<run>/evaluate_w_margin.
Do not compare tolerant scores with published Dice.
"""

import sys

from sonogravity.commands.scoring_options import scoring_parser
from sonogravity.commands.script import script


def build_parser():
    return scoring_parser("evaluate_w_margin", __doc__)


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.score import score

    score("evaluate_w_margin", model_class or DeepLabV3, options)


if __name__ == "__main__":
    sys.exit(main())
