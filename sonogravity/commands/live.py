"""Live labelling: open the model, the source and the page, and serve until the user ends it."""

import asyncio
import signal
import threading
import webbrowser
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sonogravity.commands.spacings import choose_spacings
from sonogravity.common import folders
from sonogravity.common.devices import describe_use
from sonogravity.common.messages import InputError, Terminated, say, warn
from sonogravity.common.threads import say_if_busy
from sonogravity.datasets.clips import check_times
from sonogravity.datasets.frames import Frame, at_scales
from sonogravity.datasets.inputs import Part, find_input_pairs
from sonogravity.datasets.pairs import Pair
from sonogravity.datasets.spacing import doubts
from sonogravity.inference.engines import SAMPLES, check, fastest_on, use
from sonogravity.inference.predictor import open_predictor
from sonogravity.live.gate import open_gate, tls_context
from sonogravity.live.pipeline import Encoder, Labelling, Pipeline
from sonogravity.live.server import Server, need_aiohttp, stop_on_signals
from sonogravity.live.sources import Crop, FileSource, Playback
from sonogravity.live.views import describe_stream
from sonogravity.modeling.checkpoints import find_checkpoint


@dataclass(frozen=True)
class SpacingRequest:
    """Where the spacing of the frames stands, for choose_spacings."""

    inputs: list
    pixels_per_mm: float | None
    spacing: Path | None
    margin_mm: float | None = None


def label_live(model_class, options):
    """Run live.py until Ctrl-C or a signal. options: those of live_parser."""
    need_aiohttp()
    tls = tls_context(options.certificate, options.key)
    path = find_checkpoint(options.load, folders.CHECKPOINTS / model_class.NAME)
    gate, listening = open_gate(options.host, options.port, tls is not None)
    with closing(listening):
        predictor, checkpoint = open_predictor(
            path,
            model_class,
            device=options.device,
            amp=options.amp,
            scale=options.scale,
            mask_values=options.mask_values,
            normalise=options.normalise,
        )
        if options.engine != "auto":
            check(options.engine, predictor.device)
        source = open_source(options, predictor.channels)
        predictor = with_engine(options.engine, predictor, path, source)
        _describe(predictor, checkpoint, source, options.smooth)
        pipeline = Pipeline(source, Labelling(predictor, options.smooth), Encoder(predictor, not gate.is_local))
        stream = describe_stream(predictor, checkpoint.model_name, checkpoint.run or path.stem, source)
        number = _serve(
            Server(pipeline, stream, gate, tls), pipeline, listening, lambda: _invite(gate, options.browser)
        )
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def open_source(options, channels):
    """Return the FileSource of --source. Say which spacing is used. Raise InputError if it cannot be used."""
    pairs, notes = find_input_pairs([options.source], use_masks=False, partial=True, part=Part(options.region))
    for note in notes:
        warn(note)
    images = [pair.image for pair in pairs]
    if options.smooth is not None:
        for note in check_times(images):
            warn(note)
    spacings = choose_spacings(SpacingRequest([options.source], options.pixels_per_mm, options.spacing), images)
    playback = Playback(options.loop, options.speed, options.crop and Crop(*options.crop))
    return FileSource(images, spacings, channels, options.source.resolve().name, playback)


def with_engine(name, predictor, path, source):
    """Return the predictor with the named engine. auto: the fastest one on the first frames of the source."""
    if name != "auto":
        return use(name, predictor, path)
    frames = [
        Frame(Pair(file), at_scales(image, predictor.scales), None, image.shape[:2])
        for file, image in source.samples(SAMPLES)
    ]
    if not frames:
        raise InputError(f"{source.name}: no frame can be read; give another --source")
    return fastest_on(frames, predictor, path)


def _serve(server, pipeline, listening, invite):
    """Serve until a signal comes; return its number. Print the figures of the whole run at the end, however it ends."""

    async def run():
        stop = stop_on_signals(asyncio.get_running_loop())
        await server.serve(listening, stop, invite)
        return stop.result()

    try:
        return asyncio.run(run())
    finally:
        pipeline.close()
        say(pipeline.statistics.describe_all(server.views.dropped))


def _describe(predictor, checkpoint, source, smooth_seconds):
    """Print what runs."""
    epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
    parameters = sum(each.numel() for each in predictor.model.parameters())
    say(f"model:      {checkpoint.path}, {checkpoint.model_name}{epoch}, {parameters:,} parameters")
    used = predictor.describe()
    say(f"runs on:    {describe_use(used['device'], used['mixed_precision'])}, engine {used['engine']}")
    first, playback = source.first, source.playback
    crop = "" if playback.crop is None else f", crop {playback.crop}"
    rounds = ", in a loop" * playback.loop
    count = f"{len(source.images)} frame{'s' * (len(source.images) > 1)}"
    say(f"source:     {source.name}, {count} of {first.width}x{first.height}{crop}, speed {playback.speed:g}{rounds}")
    if first.spacing.assumed:
        say("spacing:    none (not calibrated), so measurements are in pixels; --pixels-per-mm or --spacing give it")
    for doubt in doubts({source.name: first.spacing}, {source.name: first.width}):
        warn(doubt)
    if smooth_seconds is not None:
        say(f"smoothing:  logits of the frames of clips, time constant {smooth_seconds:g} s (causal)")
    say_if_busy()


def _invite(gate, browser):
    """Print the address, say who can see the stream, and open the page."""
    say(f"address:    {gate.url}")
    if not gate.is_local and not gate.encrypted:
        warn(
            f"--host {gate.host}: the stream is NOT ENCRYPTED and open to the network: anyone who can read its "
            "traffic sees the frames and the address with its token; give --certificate and --key, or leave --host out"
        )
    elif not gate.is_local:
        warn(f"--host {gate.host}: the stream is open to the network: anyone with the address sees the frames")
    say("the source begins when the page is open; Ctrl-C ends")
    if browser:
        threading.Thread(target=webbrowser.open, args=[gate.url], daemon=True).start()  # some browsers block
