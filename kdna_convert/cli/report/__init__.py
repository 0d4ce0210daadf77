"""Dataclass in, rich renderable out. Nothing here prints, and nothing here computes more than a sum or a share."""
