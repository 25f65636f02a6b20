"""Saying what features respond to, and measuring on held-out spans how well that holds."""
