"""Worksheets, figures and output folders."""
