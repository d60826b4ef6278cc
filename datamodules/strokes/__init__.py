"""Drawings as strokes: their forms, files, and batches."""
