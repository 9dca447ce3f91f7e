"""Data sets: file formats, labels, pairs, subjects, spacing, inspection, frames and training batches."""
