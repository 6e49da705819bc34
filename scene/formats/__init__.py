"""Files in which Gaussians go to other programs and come back."""
