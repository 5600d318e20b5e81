"""Config files: `base.py` has every field; the others import it and override."""
