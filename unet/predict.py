"""Label frames with a trained U-Net: masks, panels, and scores where the true masks are at hand.

    python predict.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER

Writes masks/, panels/, files.xlsx, files.csv (and summary.json) to results/unet/<run>/predict.
"""

import sys

from sonogravity.commands import options, score, script
from sonogravity.inference import predictor


def build_parser():
    parser = script.Parser("Label frames with a trained U-Net.", "python predict.py --load ckpt.pth")
    options.add_scoring(parser, predicting=True, margin=False)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from sonogravity.commands import options
    from unet.model import UNet

    request = score.Request("predict", **options.scoring_values(args))
    opened = predictor.open_all(
        args.load, UNet, device=args.device, amp=args.amp, scale=args.scale, mask_values=args.mask_values
    )
    score.score_inputs(opened, request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
