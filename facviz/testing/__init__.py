"""Planted models and fakes whose answers a person can compute on paper; used by tests, docs and the first loop."""
