"""Label frames with a trained U-Net: masks, panels, and scores where the true masks are at hand.

    python predict.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER

Writes masks/, panels/, files.xlsx, files.csv (and summary.json) to results/unet/<run>/predict.
"""

import sys

from sonogravity import cli


def build_parser():
    parser = cli.Parser("Label frames with a trained U-Net.", "python predict.py --load ckpt.pth --input FOLDER")
    cli.add_scoring(parser, panels=True)
    return parser


@cli.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from sonogravity import devices, scoring
    from unet.model import UNet

    predictor, checkpoint = scoring.open_predictor(
        args.load, UNet, device=devices.pick_device(args.device), amp=args.amp, scale=args.scale,
        mask_values=args.mask_values,
    )  # fmt: skip
    scoring.score_inputs(
        predictor, checkpoint, args.input, args.masks, script="predict", output=args.output,
        options=cli.options_as_dict(args), batch_size=args.batch_size, workers=args.workers,
        subject_regex=args.subject_regex, panels=None if args.panels == "none" else args.panels,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
