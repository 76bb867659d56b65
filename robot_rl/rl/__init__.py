"""Reinforcement learning of policies over action chunks: the on-policy core, and one short file for each method."""
