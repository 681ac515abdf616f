"""The board: a run's front, pictures and decisions in the browser."""
