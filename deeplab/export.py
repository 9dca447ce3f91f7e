"""Export a trained DeepLabV3 to ONNX, or to int8 for OpenVINO, and check it against the checkpoint.

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

    from deeplab.model import DeepLabV3
    from sonogravity.commands.export import export_checkpoint

    export_checkpoint(DeepLabV3, options)


if __name__ == "__main__":
    sys.exit(main())
