"""Ours, not the paper's: training masks are repaired, outlines by the photographs, labels by all views."""
