"""The ready-made study `painting`: a small network that turns photographs into oil paintings."""
