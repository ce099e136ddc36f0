"""Stage 4: diffusion transformers, flow matching, few steps."""
