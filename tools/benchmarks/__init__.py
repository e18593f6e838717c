"""Measures Nervus beside the goals it is held to; see `tools/bench`."""
