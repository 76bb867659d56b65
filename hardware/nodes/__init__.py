"""Nodes: each a thin program that binds pure logic to a `Graph`."""
