"""Export a trained U-Net to ONNX, or to int8 for OpenVINO, once it labels frames as the checkpoint does.

    python export.py --load ../checkpoints/unet/<run>/best.pth --input FOLDER

Writes best.onnx (or best.int8.xml and .bin) beside the checkpoint, where --engine onnx and openvino find it.
"""

import sys

from sonogravity.commands.options import add_export
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser("Export a trained U-Net to ONNX.", "python export.py --load ckpt.pth")
    add_export(parser)
    return parser


@script
def main(argv=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.export import export_checkpoint
    from unet.model import UNet

    export_checkpoint(UNet, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
