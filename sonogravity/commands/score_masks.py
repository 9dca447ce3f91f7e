"""evaluate.py --predictions: score masks of any origin, without a model."""

from collections import Counter
from dataclasses import replace

from sonogravity.commands.request import describe_settings
from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.workers import ahead, decoding_threads
from sonogravity.datasets.facts import count_values
from sonogravity.datasets.frame_files import read_mask_file
from sonogravity.datasets.label_checks import background_warning
from sonogravity.datasets.label_discovery import MANY_VALUES, common_palette, most_likely_background
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.mask_inputs import find_mask_pairs
from sonogravity.inference import segmentation
from sonogravity.reporting import score_files


def score_predictions(model_name, options, request):
    """Score masks of any origin against the true masks of the inputs, without a model.

    options: of evaluate.py, with ``predictions``, the folder of these masks.
    """
    pairs, found, notes = find_mask_pairs(request.inputs, request.masks, options.predictions, request.part)
    for note in notes:
        warn(note)
    threads = decoding_threads(request.workers)
    labels = _labels_of_truth(pairs, options, threads)
    own_labels = labels
    if options.prediction_values:
        if len(set(options.prediction_values)) != labels.count:
            raise InputError(
                f"--prediction-values: {len(set(options.prediction_values))} values for {labels.count} classes "
                f"({labels.describe()}); give one per class, all different, in this order"
            )
        own_labels = replace(labels, values=tuple(options.prediction_values), ignored=(), palette={})
        say(f"prediction values: {', '.join(map(value_text, options.prediction_values))}, in the order of the classes")
    measure = request.measure(labels, pairs)
    own = absolute(options.predictions)
    folder = request.output_folder(model_name, own.parent.name if own.name == "masks" else own.name)
    voids = []
    results = segmentation.read_predictions(pairs, found, labels, own_labels, threads, voids)
    settings = describe_settings(request, labels) | {"predictions": own.name}
    score_files.write_scores(results, pairs, folder, measure, settings, request)
    if voids:
        warn(
            f"{len(voids)} predictions hold ignored values ({some(voids)}), which count as background where the truth "
            "is not ignored"
        )


def _labels_of_truth(pairs, options, threads):
    """The Labels of the true masks, or of --mask-values; said, with a warning if the background is not most pixels."""

    def look(pair):
        values, palette = read_mask_file(pair.mask)
        return pair.mask, palette, count_values(values)

    masks = list(ahead(look, pairs, threads))
    ignored, totals = options.ignore or (), Counter()
    for _, _, counts in masks:
        totals.update({value: pixels for value, pixels in counts.items() if value not in ignored})
    values = options.mask_values or sorted(totals)
    if len(values) > MANY_VALUES:
        raise InputError(
            f"{pairs[0].mask.path.parent}: the true masks hold {len(values)} values, as images or JPEG files do; "
            "give a folder of masks, or list the values of the classes with --mask-values"
        )
    background = options.background
    if background is None:
        background = most_likely_background(totals, values)
    labels = Labels.create(values, background, options.class_names, ignored=ignored, palette=common_palette(masks))
    say(f"classes: {labels.describe()}")
    if options.background is None and (warning := background_warning(labels, totals)):
        warn(warning)
    return labels
