"""The three commands: their options, settings and summaries."""
