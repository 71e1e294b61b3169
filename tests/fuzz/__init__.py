"""Coverage-guided search for bytes that break what reads bytes from outside: `make fuzz`."""
