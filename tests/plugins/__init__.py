"""What the test runner itself is taught."""
