"""Score a trained U-Net, or masks of any origin, against true masks.

    python evaluate.py --load RUN --input FOLDER
    python evaluate.py --predictions MASKS --input FOLDER

Write files.xlsx, files.csv, calibration.png and summary.json to results/unet/<run>/evaluate.
"""

import sys

from sonogravity.commands.scoring_options import scoring_parser
from sonogravity.commands.script import script


def build_parser():
    return scoring_parser("evaluate", __doc__)


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.score import score
    from unet.model import UNet

    score("evaluate", model_class or UNet, options)


if __name__ == "__main__":
    sys.exit(main())
