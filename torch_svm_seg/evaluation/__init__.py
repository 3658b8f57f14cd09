"""Scores of folders of masks, and tables and panels of them."""
