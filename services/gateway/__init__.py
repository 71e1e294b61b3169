"""HTTP for those who do not speak NATS: an OpenAI-compatible API, events, the live page."""
