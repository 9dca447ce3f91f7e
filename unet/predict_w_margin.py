"""Label frames with a trained U-Net; where masks are at hand, score them also within a margin in mm.

    python predict_w_margin.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER --spacing spacing.csv

Writes masks/, panels/, files.xlsx, files.csv (and summary.json, sweep.png) to results/unet/<run>/predict_w_margin.
The tolerant figures stand beside the plain ones and must not be compared with published Dice.
"""

import sys

from sonogravity.commands.options import add_scoring
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser(
        "Label frames with a trained U-Net, with a margin in mm.",
        "python predict_w_margin.py --load ckpt.pth --spacing FILE.csv",
    )
    add_scoring(parser, predicting=True, margin=True)
    return parser


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.score import score
    from unet.model import UNet

    score("predict_w_margin", model_class or UNet, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
