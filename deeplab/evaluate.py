"""Score a trained DeepLabV3 on frames with masks, or any masks against others: worksheets, no pictures.

    python evaluate.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER
    python evaluate.py --predictions MASKS --input FOLDER

Writes files.xlsx, files.csv, calibration.png and summary.json to results/deeplab/<run>/evaluate.
"""

import sys

from sonogravity.commands import options, score, script
from sonogravity.inference import predictor


def build_parser():
    parser = script.Parser("Score a trained DeepLabV3 on frames with masks.", "python evaluate.py --load ckpt.pth")
    options.add_scoring(parser, predicting=False, margin=False)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands import options

    request = score.Request("evaluate", **options.scoring_values(args))
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
