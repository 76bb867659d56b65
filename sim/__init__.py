"""Simulation: arm tasks, vectorisation, randomisation, scripted experts, and the Servo."""
