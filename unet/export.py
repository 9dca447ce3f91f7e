"""Export a trained U-Net to ONNX, or to int8 for OpenVINO, and check it against the checkpoint.

    python export.py --load RUN --input FOLDER

Write best.onnx (or best.int8.xml and .bin) beside the checkpoint, where --engine onnx and openvino find it.
"""

import sys

from sonogravity.commands.scoring_options import export_parser
from sonogravity.commands.script import script


def build_parser():
    return export_parser(__doc__)


@script
def main(argv=None):
    options = build_parser().parse_args(argv)

    from sonogravity.commands.export import export_checkpoint
    from unet.model import UNet

    export_checkpoint(UNet, options)


if __name__ == "__main__":
    sys.exit(main())
