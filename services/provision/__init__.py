"""Makes the streams and consumers: the set-up job of a deployment."""
