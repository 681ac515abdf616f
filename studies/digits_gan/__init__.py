"""The ready-made study `digits_gan`: a generator that draws the digit it is told."""
