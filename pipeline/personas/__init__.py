"""Personas and scenarios: what a row may hold (schema), where rows come from (rows), which are good (load)."""
