"""What plays episodes: lerobot-eval and the resident engine, their flags, metrics, failures and certificates."""
