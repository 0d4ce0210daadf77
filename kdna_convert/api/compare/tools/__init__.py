"""A file for each tool: `compress(net, images, task) -> Candidate`, called by worker.py in a process of its own.

`net` may be changed, `images` (N, C, H, W) are unlabelled, `task` says which layers may change and how large the whole
net may be.
"""
