"""The page that people look at: report.html of one campaign, and an index over several.

The page opens from disk without a network: its data lie inside the page, videos and traces beside it. No module here
decides anything; each shows what the artifacts, the contracts and the statistics say.
"""
