"""Stage 2: latent diffusion. An autoencoder makes images small, and stage 1's diffusion works on what it makes."""
