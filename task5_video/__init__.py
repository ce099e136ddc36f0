"""Stage 5: video diffusion."""
