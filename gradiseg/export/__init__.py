"""Export: a labelled model as files for other programs, and as a page for people."""
