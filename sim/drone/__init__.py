"""Quadrotors: batched flight, sensors, tasks and experts."""
