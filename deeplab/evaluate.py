"""Score a trained DeepLabV3 on frames with masks: worksheets only, no pictures.

    python evaluate.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER

Writes files.xlsx, files.csv and summary.json to results/deeplab/<run>/evaluate.
"""

import sys

from sonogravity import cli


def build_parser():
    parser = cli.Parser("Score a trained DeepLabV3 on frames with masks.", "python evaluate.py --load ckpt.pth")
    cli.add_scoring(parser, panels=False)
    return parser


@cli.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity import devices, scoring
    from sonogravity.pairs import find_input_pairs

    predictor, checkpoint = scoring.open_predictor(
        args.load, DeepLabV3, device=devices.pick_device(args.device), amp=args.amp, scale=args.scale,
        mask_values=args.mask_values,
    )  # fmt: skip
    pairs, notes = find_input_pairs(args.input, args.masks)
    for note in notes:
        cli.warn(note)
    scoring.score_files(
        predictor,
        pairs,
        scoring.output_folder(args.output, checkpoint, "evaluate"),
        scoring.describe(predictor, checkpoint, cli.options_as_dict(args), "evaluate"),
        batch_size=args.batch_size,
        workers=devices.decoding_threads(args.workers),
        subject_regex=args.subject_regex,
        masks=False,
        panels=None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
