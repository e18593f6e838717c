"""Nervus: reflexes at the edge, attention in the hub (see `nervus.about`)."""
