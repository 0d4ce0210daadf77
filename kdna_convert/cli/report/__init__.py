"""Reports: a dataclass to a rich renderable. Nothing here prints or computes more than a sum or a share."""
