"""Export a trained DeepLabV3 to ONNX, or to int8 for OpenVINO, once it labels frames as the checkpoint does.

    python export.py --load ../checkpoints/deeplab/<run>/best.pth --input FOLDER

Writes best.onnx (or best.int8.xml and .bin) beside the checkpoint, where --engine onnx and openvino find it.
"""

import sys

from sonogravity.commands.options import add_export
from sonogravity.commands.script import Parser, script


def build_parser():
    parser = Parser("Export a trained DeepLabV3 to ONNX.", "python export.py --load ckpt.pth")
    add_export(parser)
    return parser


@script
def main(argv=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.export import export_checkpoint

    export_checkpoint(DeepLabV3, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
