"""Draws a ball with robosuite's renderer, as a LIBERO task would be drawn, without importing lerobot or LIBERO.

Usage: python -m tracka.preflight.probes.draw
Prints one JSON object: {"gl": who draws, "std": the standard deviation of the picture's pixels}.
"""

import json

from .render import gl_names

BALL = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="front" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
    <geom type="sphere" size="0.5" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""
SIZE = 64  # pixels, height and width


def main() -> None:
    """Draws the ball and prints what drew it."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen, MjSim

    sim = MjSim.from_xml_string(BALL)
    sim.add_render_context(MjRenderContextOffscreen(sim, device_id=-1))
    sim.forward()
    picture = sim.render(width=SIZE, height=SIZE, camera_name="front")
    print(json.dumps({"gl": gl_names(), "std": round(float(picture.std()), 2)}), flush=True)


if __name__ == "__main__":
    main()
