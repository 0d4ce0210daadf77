"""The ground: errors, shared data types, linear algebra, padding and modes of layers, processes and file basics."""
