"""The ground: errors, shared data types, linear algebra, processes and file basics. Nothing here knows a network."""
