"""What LIBERO finds out about a scene after each step, found out once: is the goal reached, what must be shown.

robosuite asks for success in the reward, LIBERO once more, lerobot a third time, each time comparing the names of all
geoms that touch; and each step a stove's burner is lit or not, which only a picture shows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite.models.base import MujocoModel

Mask = NDArray[np.bool_]


class Goal:
    """The goal of one simulator's task. `bind` it again after each reset."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        inner.check_contact = self.touching
        self.bind()

    def bind(self) -> None:
        """Forgets geoms, which may be of another model now, and sees whether showing can wait for a picture."""
        self._masks: dict[int, tuple[Any, Mask]] = {}
        self._contact = self._inner.sim.data._data
        self._may_wait = self._lasting()
        self._due = False

    def unbind(self) -> None:
        """Leaves the simulator to LIBERO."""
        vars(self._inner).pop("check_contact", None)

    def reached(self) -> bool:
        """Whether the goal holds after a step. What is to be shown is due, and shown now if it cannot wait."""
        success = bool(self._inner._check_success())
        self._due = True
        if not self._may_wait:
            self.show()
        return success

    def show(self) -> None:
        """Makes visible what the state shows, before a picture is taken."""
        if self._due:
            self._inner._post_process()
            self._due = False

    def touching(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        """robosuite's `check_contact`: whether any geom of the one touches any of the other, or anything at all."""
        first, second = self._contact.contact.geom.T
        mask = self._mask(geoms_1)
        if geoms_2 is None:
            return bool((mask[first] | mask[second]).any())
        other = self._mask(geoms_2)
        return bool((mask[first] & other[second] | mask[second] & other[first]).any())

    def _mask(self, geoms: Any) -> Mask:
        """Which geoms of the simulation are meant, (ngeom,); remembered for models, whose geoms stay the same."""
        if not isinstance(geoms, MujocoModel):
            return self._marked([geoms] if isinstance(geoms, str) else geoms)
        if id(geoms) not in self._masks:
            self._masks[id(geoms)] = geoms, self._marked(geoms.contact_geoms)
        return self._masks[id(geoms)][1]

    def _marked(self, names: list[str]) -> Mask:
        known = self._inner.sim.model._geom_name2id
        mask = np.zeros(self._inner.sim.model.ngeom, bool)
        mask[[known[name] for name in names if name in known]] = True
        return mask

    def _lasting(self) -> bool:
        """Whether what is shown depends on the last state alone. Otherwise each step must be followed.

        LIBERO shows or hides a site by replacing its alpha by 1 - alpha. That leads back and forth between the same two
        if they are exact, and if one of them is positive and one is not.
        """
        inner = self._inner
        looks = [inner.get_object(name).object_properties["vis_site_names"] for name in inner.visualization_sites_list]
        sites = {inner.sim.model.site_name2id(site) for look in looks for site, _ in look.values()}
        alphas = [inner.sim.model.site_rgba[site, 3] for site in sites]
        return all((alpha <= 0 or alpha >= 1) and 1 - (1 - alpha) == alpha for alpha in alphas)
