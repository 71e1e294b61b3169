"""Evaluates the method: answers by several methods side by side, judged, timed and reported."""
