"""Identities for a splat that another tool trained: votes of its pixels, and sharper boundaries."""
