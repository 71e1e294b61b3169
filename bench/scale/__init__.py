"""How far it carries: more endpoints, more processes a service, more requests in flight."""
