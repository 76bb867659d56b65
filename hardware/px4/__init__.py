"""Quadrotors under PX4: its messages and frames, the Supervisor of a flight, and a twin with PX4's own rules."""
