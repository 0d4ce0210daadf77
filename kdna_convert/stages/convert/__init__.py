"""Fit every family of a plan and replace the weights of its layers."""
