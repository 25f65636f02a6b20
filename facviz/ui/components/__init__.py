"""Small pieces that several pages draw: spans, metrics, job progress, tables."""
