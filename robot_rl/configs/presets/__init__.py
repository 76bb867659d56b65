"""Recipes named after their source: what `robot-rl train policy=<name>` sets."""
