"""The ready-made study `strokes_rvae`: the recurrent decoder of a variational autoencoder that draws digits row by row."""
