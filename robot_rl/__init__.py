"""robot_rl: a robot learning stack with a sim-to-real bridge. The version, and nothing else."""

__version__ = "0.1.0"
