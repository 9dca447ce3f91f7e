"""Label frames with a trained U-Net; where masks are at hand, score them also within a margin in mm.

    python predict_w_margin.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER --spacing spacing.csv

Writes masks/, panels/, files.xlsx, files.csv (and summary.json, sweep.png) to results/unet/<run>/predict_w_margin.
The tolerant figures stand beside the plain ones and must not be compared with published Dice.
"""

import sys

from sonogravity.commands import options, score, script
from sonogravity.inference import predictor


def build_parser():
    parser = script.Parser(
        "Label frames with a trained U-Net, with a margin in mm.",
        "python predict_w_margin.py --load ckpt.pth --spacing FILE.csv",
    )
    options.add_scoring(parser, predicting=True, margin=True)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from sonogravity.commands import options
    from unet.model import UNet

    request = score.Request("predict_w_margin", **options.scoring_values(args))
    opened = predictor.open_all(
        args.load, UNet, device=args.device, amp=args.amp, scale=args.scale, mask_values=args.mask_values
    )
    score.score_inputs(opened, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
