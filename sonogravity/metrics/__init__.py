"""Scores of predictions: overlap, boundary, margin, confidence, and the columns of the worksheets."""
