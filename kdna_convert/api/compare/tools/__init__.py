"""One module per tool, with the interface `Tool` of peers.py. worker.py runs each in its own process."""
