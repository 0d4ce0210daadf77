"""A network whose weights are derived from shared tensors, and the folder that stores it."""
