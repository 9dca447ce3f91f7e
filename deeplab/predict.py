"""Label frames with a trained DeepLabV3: masks, panels, and scores if the true masks are at hand.

    python predict.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER

Writes masks/, panels/, files.xlsx, files.csv (and summary.json) to results/deeplab/<run>/predict.
"""

import sys

from sonogravity.commands.options import add_scoring
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser("Label frames with a trained DeepLabV3.", "python predict.py --load ckpt.pth")
    add_scoring(parser, predicting=True, margin=False)
    return parser


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.score import score

    score("predict", model_class or DeepLabV3, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
