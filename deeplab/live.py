"""Label a clip or a folder of frames live with a trained DeepLabV3, and show it in the browser.

    python live.py --load RUN --source CLIP

Print the address of the page, open it, and serve it until Ctrl-C. See docs/live.md.
"""

import sys

from sonogravity.commands.live_options import live_parser
from sonogravity.commands.script import script


def build_parser():
    return live_parser(__doc__)


@script
def main(argv=None, model_class=None):
    options = build_parser().parse_args(argv)

    from deeplab.model import DeepLabV3
    from sonogravity.commands.live import label_live

    label_live(model_class or DeepLabV3, options)


if __name__ == "__main__":
    sys.exit(main())
