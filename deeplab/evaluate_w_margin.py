"""Score a trained DeepLabV3, or any masks, also against a truth moved by a margin in mm.

    python evaluate_w_margin.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER --spacing spacing.csv
    python evaluate_w_margin.py --predictions MASKS --input FOLDER --spacing spacing.csv

Writes files.xlsx, files.csv, calibration.png, sweep.png and summary.json to results/deeplab/<run>/evaluate_w_margin.
The tolerant figures stand beside the plain ones and must not be compared with published Dice.
"""

import sys

from sonogravity import cli


def build_parser():
    parser = cli.Parser(
        "Score a trained DeepLabV3 on frames with masks, with a margin in mm.",
        "python evaluate_w_margin.py --load ckpt.pth --spacing FILE.csv",
    )
    cli.add_scoring(parser, predicting=False, margin=True)
    return parser


@cli.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity import scoring

    request = scoring.Request("evaluate_w_margin", **cli.scoring_values(args))
    if args.predictions:
        scoring.score_predictions("deeplab", args.predictions, args.mask_values, request)
        return 0
    opened = scoring.open_all(
        args.load, DeepLabV3, device=args.device, amp=args.amp, scale=args.scale, mask_values=args.mask_values
    )
    scoring.score_inputs(opened, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
