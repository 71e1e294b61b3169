"""The services of Skelgraph and what they stand on."""
