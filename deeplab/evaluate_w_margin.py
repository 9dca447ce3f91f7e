"""Score a trained DeepLabV3, or any masks, also against a truth moved by a margin in mm.

    python evaluate_w_margin.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER --spacing spacing.csv
    python evaluate_w_margin.py --predictions MASKS --input FOLDER --spacing spacing.csv

Writes files.xlsx, files.csv, calibration.png, sweep.png and summary.json to results/deeplab/<run>/evaluate_w_margin.
The tolerant figures stand beside the plain ones and must not be compared with published Dice.
"""

import sys

from sonogravity.commands import options, score, script
from sonogravity.inference import predictor


def build_parser():
    parser = script.Parser(
        "Score a trained DeepLabV3 on frames with masks, with a margin in mm.",
        "python evaluate_w_margin.py --load ckpt.pth --spacing FILE.csv",
    )
    options.add_scoring(parser, predicting=False, margin=True)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands import options

    request = score.Request("evaluate_w_margin", **options.scoring_values(args))
    if args.predictions:
        score.score_predictions("deeplab", args.predictions, args.mask_values, request)
        return 0
    opened = predictor.open_all(
        args.load, DeepLabV3, device=args.device, amp=args.amp, scale=args.scale, mask_values=args.mask_values
    )
    score.score_inputs(opened, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
