"""A run: planned, asked for, kept in its folder. How good the answers are, nothing here knows."""
