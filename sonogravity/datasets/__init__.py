"""From files to frames to batches: formats, labels, pairs, subjects, spacing, inspection."""
