"""Makes the documentation's site, and the pages of reference that follow from the code."""
