"""Worksheets, pictures and the folders they are written to."""
