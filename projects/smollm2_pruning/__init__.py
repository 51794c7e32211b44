"""Perplexity of SmolLM2-135M as feed-forward units are silenced, by strategy."""
