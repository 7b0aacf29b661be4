"""A design as files that scanners and other packages read."""
