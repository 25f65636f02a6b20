"""Clients behind the LLMClient port; the only place that may import a provider."""
