"""Speed bars, each a ratio of facviz to a plain reference on the same machine; `python -m benchmarks` runs them all."""
