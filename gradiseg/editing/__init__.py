"""Editing: what the identities of the Gaussians are good for."""
