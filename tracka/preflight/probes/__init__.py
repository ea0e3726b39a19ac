"""Programs of their own process: the only code of Track A that imports lerobot, LIBERO or mujoco."""
