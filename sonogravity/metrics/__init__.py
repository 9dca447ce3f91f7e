"""Every score of a prediction: overlap, boundary, margin, confidence, and their columns."""
