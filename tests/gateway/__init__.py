"""The gateway over the whole product; one site serves all tests of this package."""
