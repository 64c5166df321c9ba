"""Tables to matplotlib figures. No file is read or written here, and nothing is recomputed."""
