"""What runs for hours: `tools/soak`."""
