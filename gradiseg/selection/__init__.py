"""Selection: which Gaussians, as a boolean tensor (N,)."""
