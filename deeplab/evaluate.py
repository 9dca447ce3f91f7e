"""Score a trained DeepLabV3 on frames with masks, or any masks against others: worksheets, no pictures.

    python evaluate.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER
    python evaluate.py --predictions MASKS --input FOLDER

Writes files.xlsx, files.csv, calibration.png and summary.json to results/deeplab/<run>/evaluate.
"""

import sys

from sonogravity import cli


def build_parser():
    parser = cli.Parser("Score a trained DeepLabV3 on frames with masks.", "python evaluate.py --load ckpt.pth")
    cli.add_scoring(parser, predicting=False, margin=False)
    return parser


@cli.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity import scoring

    request = scoring.Request("evaluate", **cli.scoring_values(args))
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
