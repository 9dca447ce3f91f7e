"""Duplicates by content, and near copies across the training and the validation set."""

import numpy as np

from sonogravity.common.messages import some

# Frames are near copies if the correlation of their thumbnails is at least this. In lumbar phantom sweeps,
# neighbouring frames of one subject reach 0.99, and frames of different subjects at most 0.92.
NEAR_COPY = 0.98
COMPARED_AT_ONCE = 256  # frames per step, so that memory does not grow with the product of the sets' sizes


def find_copies(training, validation, warnings):
    """Return a line with the numbers of duplicates and of near copies across the sets; add to warnings."""
    seen, duplicates = {}, []
    for fact in (*training, *validation):
        if fact.digest in seen:
            duplicates.append(
                f"{seen[fact.digest].path.parent.parent.name}/{seen[fact.digest].name} = "
                f"{fact.pair.image.path.parent.parent.name}/{fact.pair.image.name}"
            )
        else:
            seen[fact.digest] = fact.pair.image
    if duplicates:
        warnings.append(f"{len(duplicates)} images are duplicates by content: {some(duplicates)}")
    digests = {fact.digest for fact in training}
    compared, near = _normalised(training), []
    for first in range(0, len(validation), COMPARED_AT_ONCE):
        block = validation[first : first + COMPARED_AT_ONCE]
        alike = _normalised(block) @ compared.T
        near += [
            f"{fact.pair.image.name} ~ {training[row.argmax()].pair.image.name} ({row.max():.3f})"
            for fact, row in zip(block, alike, strict=True)
            if row.max() >= NEAR_COPY and fact.digest not in digests
        ]
    if near:
        warnings.append(f"{len(near)} validation images are near copies of training images: {some(near)}")
    return [f"duplicates: {len(duplicates)} by content; near copies across the sets: {len(near)}"]


def _normalised(facts):
    """Return the thumbnails as rows of mean 0 and norm 1. The product of two rows is their correlation."""
    rows = np.stack([fact.thumbnail for fact in facts]).reshape(len(facts), -1).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
