"""Batched support vector machines on tensors, which know nothing of images."""
