"""Segment frames with a trained U-Net. Score the predictions if there are true masks.

    python predict.py --load RUN --input FOLDER

Write masks/, panels/, files.xlsx, files.csv and summary.json to results/unet/<run>/predict.
"""

import sys

from sonogravity.commands.scoring_options import scoring_parser
from sonogravity.commands.script import script


def build_parser():
    return scoring_parser("predict", __doc__)


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.score import score
    from unet.model import UNet

    score("predict", model_class or UNet, options)


if __name__ == "__main__":
    sys.exit(main())
