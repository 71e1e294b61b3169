"""Saves the streams to files and makes them anew from there."""
