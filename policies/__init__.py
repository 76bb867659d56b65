"""Generative action policies: observation encoders, denoisers, processes, normalisers, the chunk runner."""
