"""The ready-made study `digits_vae`: the decoder of a variational autoencoder that draws digits."""
