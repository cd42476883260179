"""The Lyra 2.0 video generator: network, streaming VAE, samplers, conditioning. Needs the extra ``lyra2``; light to import."""
