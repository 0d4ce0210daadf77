"""One module for each tool, with the interface `Tool` of peers.py. worker.py runs it in a process of its own."""
