"""From run folders to tables, pages and verdicts in words."""
