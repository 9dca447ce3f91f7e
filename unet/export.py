"""Export a trained U-Net to ONNX, or to int8 for OpenVINO, once it labels frames as the checkpoint does.

    python export.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER

Writes best.onnx (or best.int8.xml and .bin) beside the checkpoint, where --engine onnx and openvino find it.
"""

import sys

from sonogravity.commands import export, options, script


def build_parser():
    parser = script.Parser("Export a trained U-Net to ONNX.", "python export.py --load ckpt.pth")
    options.add_export(parser)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)

    from unet.model import UNet

    export.export_checkpoint(args.load, UNet, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
