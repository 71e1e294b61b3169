"""Owns each request: folds its facts, releases its nodes, writes its end."""
