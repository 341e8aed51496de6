"""The latent action model: encoder, quantizer, decoder, losses.

Shape legend of every module here:
B batch, T latent frames, C H W channels and grid of a latent, P patches of a frame, E transformer
width, S code slots of an action, Q width of a code, K codes in the codebook.
"""
