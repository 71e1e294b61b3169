"""What every service stands on: settings, logs, NATS, engines, lifecycle."""
