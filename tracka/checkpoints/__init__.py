"""Resolves a policy path to a hashed local folder, and reports what is wrong with a checkpoint by its files alone.

Nothing here imports lerobot or starts an evaluation. Checks of a checkpoint against this host or against LIBERO are in
`preflight/`.
"""
