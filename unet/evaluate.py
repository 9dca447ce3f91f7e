"""Score a trained U-Net on frames with masks, or any masks against others: worksheets, no pictures.

    python evaluate.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER
    python evaluate.py --predictions MASKS --input FOLDER

Writes files.xlsx, files.csv, calibration.png and summary.json to results/unet/<run>/evaluate.
"""

import sys

from sonogravity import cli


def build_parser():
    parser = cli.Parser("Score a trained U-Net on frames with masks.", "python evaluate.py --load ckpt.pth")
    cli.add_scoring(parser, predicting=False, margin=False)
    return parser


@cli.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from sonogravity import scoring
    from unet.model import UNet

    request = scoring.Request("evaluate", **cli.scoring_values(args))
    if args.predictions:
        scoring.score_predictions("unet", args.predictions, args.mask_values, request)
        return 0
    opened = scoring.open_all(
        args.load, UNet, device=args.device, amp=args.amp, scale=args.scale, mask_values=args.mask_values
    )
    scoring.score_inputs(opened, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
