"""The ready-made study `superres`: photographs at twice their size."""
