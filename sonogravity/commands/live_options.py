"""The options of live.py. Nothing here imports torch, so that --help responds at once."""

from pathlib import Path

from sonogravity.commands.options import add_device, add_normalise, add_region, add_switch, mask_values
from sonogravity.commands.scoring_options import add_scale, add_spacing
from sonogravity.commands.script import Parser
from sonogravity.common import choices
from sonogravity.common.option_types import play_speed, port_number, rectangle, smoothing_time
from sonogravity.live.gate import LOOPBACK


def live_parser(documentation):
    """Return the parser of every live.py. documentation: the docstring of the script."""
    parser = Parser(documentation)
    _add_model(parser.add_argument_group("model"))
    _add_source(parser.add_argument_group("source"))
    _add_server(parser.add_argument_group("page"))
    return parser


def _add_model(group):
    add = group.add_argument
    add("--load", "-f", type=Path, required=True, metavar="CKPT", help="a checkpoint, or the name of a run")
    add_scale(add)
    add_normalise(group, "as in a checkpoint of train.py; else none")
    add("--mask-values", type=mask_values, metavar="V,V,...", help="one per class, if the checkpoint has none")
    add_switch(group, "--amp", None, "mixed precision (default: as in training)")
    add_device(group)
    add(
        "--engine",
        choices=(*choices.ENGINES, "auto"),
        default="auto",
        help="software that runs the network; auto: the fastest one that is installed, without torch.compile",
    )
    add(
        "--smooth",
        type=smoothing_time,
        metavar="SECONDS",
        help="average the logits of each frame with those of the frames before, with this time constant",
    )


def _add_source(group):
    add = group.add_argument
    add(
        "--source",
        type=Path,
        required=True,
        metavar="PATH",
        help="a clip, a DICOM file, an image, or a folder of them, played in its own time; images at 10 per second",
    )
    add_switch(group, "--loop", False, "begin again at the end of the source")
    add("--speed", type=play_speed, default=1.0, metavar="X", help="play X times as fast")
    add("--crop", type=rectangle, metavar="X,Y,W,H", help="use this rectangle of each frame only, in pixels")
    add_region(group)
    add_spacing(group)


def _add_server(group):
    add = group.add_argument
    add(
        "--host",
        default=LOOPBACK,
        metavar="H",
        help="address to listen on; any but 127.0.0.1 opens the stream to the network, 0.0.0.0 on all its addresses",
    )
    add("--port", type=port_number, default=0, metavar="N", help="port to listen on; 0: a free one")
    add("--certificate", type=Path, metavar="FILE", help="certificate (PEM), to encrypt the stream; with --key")
    add("--key", type=Path, metavar="FILE", help="private key (PEM) of the certificate, without a password")
    add_switch(group, "--browser", True, "open the page in the browser")
