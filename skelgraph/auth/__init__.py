"""Who may do what on NATS: keys, tokens, permissions, certificates, and the folder of them."""
