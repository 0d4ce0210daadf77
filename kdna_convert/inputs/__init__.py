"""What the user passes in: MODEL, DATA and RECIPE."""
