"""The trusted policy and the decisions taken from it."""
