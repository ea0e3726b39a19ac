"""Makes one file of a campaign's evidence, in the standards of archives and attestations, and verifies such a file."""
