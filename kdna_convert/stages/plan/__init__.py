"""Predict the error of every family at several sizes, and choose the sizes under a budget."""
