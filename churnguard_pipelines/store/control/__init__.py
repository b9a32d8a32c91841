"""Schema ``control``: what people configure, who may do what, and who did what."""
