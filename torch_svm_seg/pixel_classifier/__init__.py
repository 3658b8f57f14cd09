"""One classifier of the pixels of all images: what other images know about the classes of an image."""
