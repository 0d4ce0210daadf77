"""Measure a network: accuracy, divergence from the original, latency."""
