"""Ours, not the paper's: training masks are repaired, their outlines by the photographs, their labels by what views agree on."""
