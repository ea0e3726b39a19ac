"""Shows and writes what a campaign has found in the forms and places that other tools look at."""
