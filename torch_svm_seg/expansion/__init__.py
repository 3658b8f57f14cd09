"""The expansion: each image's own pixel classifier, which re-labels all of its pixels."""
