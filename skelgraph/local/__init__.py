"""The local stack: a real nats-server, real engines and every service, on one machine."""
