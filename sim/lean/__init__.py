"""Lean tasks: small MJCF scenes, many copies stepped in one call, for learning that needs millions of steps."""
