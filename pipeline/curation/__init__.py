"""From answers to replies that are kept or dropped, and why; and which of two is better."""
