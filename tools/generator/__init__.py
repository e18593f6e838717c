"""Generates code from schemas/: hub models, topic builders and the firmware's tables."""
