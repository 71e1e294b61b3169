"""Measurements: what is said about speed is said here."""
