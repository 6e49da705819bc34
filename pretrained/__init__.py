"""Networks of others, and where their weights are found: SAM, Grounding DINO, HED, LPIPS."""
