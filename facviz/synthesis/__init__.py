"""Coverage-guided synthesis: samples aimed at missing features, proved to fire on the same backbone and SAE."""
