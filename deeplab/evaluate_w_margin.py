"""Score a trained DeepLabV3, or any masks, also against a truth moved by a margin in mm.

    python evaluate_w_margin.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER --spacing spacing.csv
    python evaluate_w_margin.py --predictions MASKS --input FOLDER --spacing spacing.csv

Writes files.xlsx, files.csv, calibration.png, sweep.png and summary.json to results/deeplab/<run>/evaluate_w_margin.
The tolerant figures stand beside the plain ones and must not be compared with published Dice.
"""

import sys

from sonogravity.commands.options import add_scoring
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser(
        "Score a trained DeepLabV3 on frames with masks, with a margin in mm.",
        "python evaluate_w_margin.py --load ckpt.pth --spacing FILE.csv",
    )
    add_scoring(parser, predicting=False, margin=True)
    return parser


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.score import score

    score("evaluate_w_margin", model_class or DeepLabV3, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
