"""What may vary, and how a choice becomes a model: capture, space, candidate, build."""
