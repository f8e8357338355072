"""A study trained while everything around it is broken on purpose, and a check of what became."""
