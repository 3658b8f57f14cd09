"""Interactive labelling: a page on this machine on which strokes become masks at once."""
