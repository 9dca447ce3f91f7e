"""Segment frames with a trained DeepLabV3. Score the predictions, also with a margin in mm, if there are true masks.

    python predict_w_margin.py --load RUN --input FOLDER --spacing FILE.csv

Write masks/, panels/, files.xlsx, files.csv, summary.json (with true masks also sweep.png) to
results/deeplab/<run>/predict_w_margin. Do not compare tolerant scores with published Dice.
"""

import sys

from sonogravity.commands.scoring_options import scoring_parser
from sonogravity.commands.script import script


def build_parser():
    return scoring_parser("predict_w_margin", __doc__)


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.score import score

    score("predict_w_margin", model_class or DeepLabV3, options)


if __name__ == "__main__":
    sys.exit(main())
