"""What one would use instead, running the same graphs: each peer in an environment of its own."""
