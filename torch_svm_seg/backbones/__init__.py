"""Networks whose features are read at their stages."""
