"""Runs as data, and the engines that carry them out: on this machine, or on a Ray cluster."""
