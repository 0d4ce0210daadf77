"""Survey the layers, collect the second moments of their inputs, and compare and cluster the kernels."""
