"""Formats that carry features between tools: FAC TSV, Neuronpedia's JSON lines, CSV for review. No store, no torch.

Readers report every line they cannot use; writers give the same bytes for the same records.
"""
