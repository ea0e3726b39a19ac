"""The ground that all else stands on: errors, whole files, locks, hashes, redaction and schemas."""
