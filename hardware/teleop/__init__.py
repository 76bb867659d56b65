"""Teleoperation: devices in a person's hand, and how their readings become actions."""
