"""From a policy path to a hashed folder that may be loaded, by reading files alone."""
