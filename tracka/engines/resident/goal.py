"""What LIBERO computes about a scene after each step, computed once: whether the goal is reached, what must be shown.

robosuite checks for success in the reward, LIBERO checks once more, and lerobot a third time, each time comparing the
names of all geoms that touch. Each step also lights or darkens a stove's burner, which only a picture shows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite.models.base import MujocoModel

Mask = NDArray[np.bool_]


class Goal:
    """Checks the goal of one simulator's task. `bind` must be called again after each reset."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        inner.check_contact = self.touching
        self.bind()

    def bind(self) -> None:
        """Forgets the geoms, which may be of another model now, and finds whether showing can wait for a picture."""
        self._masks: dict[int, tuple[Any, Mask]] = {}
        self._contact = self._inner.sim.data._data
        self._may_wait = self._look_follows_state()
        self._due = False

    def unbind(self) -> None:
        """Gives the simulator its own `check_contact` back."""
        vars(self._inner).pop("check_contact", None)

    def reached(self) -> bool:
        """Returns whether the goal holds after a step.

        The scene's look must then be updated by `show`, which happens here if the update cannot wait for a picture.
        """
        success = bool(self._inner._check_success())
        self._due = True
        if not self._may_wait:
            self.show()
        return success

    def show(self) -> None:
        """Brings the scene's look up to date with its state. Must be called before a picture is taken."""
        if self._due:
            self._inner._post_process()
            self._due = False

    def touching(self, geoms_1: Any, geoms_2: Any = None) -> bool:
        """Returns whether any geom of `geoms_1` touches any of `geoms_2`, or anything at all where that is None.

        `touching` takes the place of robosuite's `check_contact`.
        """
        first, second = self._contact.contact.geom.T
        mask = self._mask(geoms_1)
        if geoms_2 is None:
            return bool((mask[first] | mask[second]).any())
        second_mask = self._mask(geoms_2)
        return bool((mask[first] & second_mask[second] | mask[second] & second_mask[first]).any())

    def _mask(self, geoms: Any) -> Mask:
        """Returns which geoms of the simulation `geoms` means, with shape (ngeom,).

        The answer is kept for models, whose geoms stay the same.
        """
        if not isinstance(geoms, MujocoModel):
            return self._mask_of([geoms] if isinstance(geoms, str) else geoms)
        if id(geoms) not in self._masks:
            self._masks[id(geoms)] = geoms, self._mask_of(geoms.contact_geoms)
        return self._masks[id(geoms)][1]

    def _mask_of(self, names: list[str]) -> Mask:
        geom_ids = self._inner.sim.model._geom_name2id
        mask = np.zeros(self._inner.sim.model.ngeom, bool)
        mask[[geom_ids[name] for name in names if name in geom_ids]] = True
        return mask

    def _look_follows_state(self) -> bool:
        """Returns whether the scene's look depends on the last state alone. Otherwise `show` must follow each step.

        LIBERO shows or hides a site by replacing its alpha by 1 - alpha. These replacements lead back and forth between
        the same two values if both are exact, and if one value is positive and the other is not.
        """
        inner = self._inner
        looks = [inner.get_object(name).object_properties["vis_site_names"] for name in inner.visualization_sites_list]
        sites = {inner.sim.model.site_name2id(site) for look in looks for site, _ in look.values()}
        alphas = [inner.sim.model.site_rgba[site, 3] for site in sites]
        return all((alpha <= 0 or alpha >= 1) and 1 - (1 - alpha) == alpha for alpha in alphas)
