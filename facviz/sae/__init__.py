"""Sparse autoencoders: weights, inference, training, evaluation, directions, file formats. Knows no model."""
