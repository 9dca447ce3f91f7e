"""Score a trained U-Net on frames with masks, or any masks against others: worksheets, no pictures.

    python evaluate.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER
    python evaluate.py --predictions MASKS --input FOLDER

Writes files.xlsx, files.csv, calibration.png and summary.json to results/unet/<run>/evaluate.
"""

import sys

from sonogravity.commands.options import add_scoring
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser("Score a trained U-Net on frames with masks.", "python evaluate.py --load ckpt.pth")
    add_scoring(parser, predicting=False, margin=False)
    return parser


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.score import score
    from unet.model import UNet

    score("evaluate", model_class or UNet, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
