"""The ready-made study `styles`: one network that paints photographs in four styles."""
