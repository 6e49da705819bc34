"""Editing: what is done with a selection."""
