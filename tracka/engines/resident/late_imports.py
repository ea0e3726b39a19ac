"""Puts off imports that lerobot makes at the top of its modules and that an evaluation of most policies never uses.

lerobot's packages import every policy that it knows, and with these its training: data sets, schedulers, accelerate,
diffusers. Each module in LATE, and the modules of policies other than the one that is asked, is a `LateModule` until
something of it is needed: a name that is imported from it stands for the real one (`LateName`), and the real module is
imported, in its place, as soon as such a name is called, subclassed or looked into, or any other name is asked for.

Guarantees: what is used is the real object of the real module. `isinstance` says False of a class that is not
imported yet, of which no object can exist. A module that cannot be found is missing as ever.
"""

import importlib.abc
import importlib.machinery
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ...core import files

# Module -> names that others import from it at their top and use in functions alone. Any other name imports the module.
LATE: Mapping[str, frozenset[str]] = {
    "accelerate": frozenset({"PartialState", "dispatch_model"}),
    "accelerate.hooks": frozenset({"AlignDevicesHook", "add_hook_to_module"}),
    "accelerate.utils": frozenset(
        {
            "extract_model_from_parallel",
            "get_balanced_memory",
            "get_max_memory",
            "infer_auto_device_map",
            "reduce",
        }
    ),
    "accelerate.utils.modeling": frozenset({"clean_device_map", "get_max_layer_size"}),
    "diffusers": frozenset(),
    "diffusers.optimization": frozenset({"get_scheduler"}),
    "lerobot.policies.rtc.debug_tracker": frozenset({"Tracker"}),
    "lerobot.transforms": frozenset({"ImageTransformsConfig"}),
    "peft": frozenset({"PEFT_TYPE_TO_CONFIG_MAPPING", "PeftConfig", "PeftModel", "PeftType", "get_peft_model"}),
    "scipy.optimize": frozenset({"linear_sum_assignment"}),
    "torch._dynamo": frozenset(),
    "torch._dynamo._trace_wrapped_higher_order_op": frozenset({"TransformGetItemToIndex"}),
    "torch._dynamo.utils": frozenset({"is_compile_supported"}),
    "transformers": frozenset({"AutoProcessor", "AutoTokenizer"}),
    "transformers.integrations.flex_attention": frozenset({"flex_attention_forward"}),
    "transformers.integrations.flash_paged": frozenset({"paged_attention_forward"}),
}
PATH_FLAG = "--policy.path="
PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
TYPES = ("act", "pi0", "pi05", "smolvla")  # policies that were tried with late imports
POLICY_MODULE = re.compile(r"lerobot\.policies\.([a-z]\w*)(?:\.(?:configuration|modeling|processor)_\w+)?")
POLICY_NAME = re.compile(r"[A-Z]\w*(?:Config|Policy)|make_\w+_pre_post_processors")
NO_POLICIES = ("factory", "pi_gemma", "pretrained", "utils", "common", "rtc")
_LOCK = threading.RLock()


class LateModule(ModuleType):
    """A module that is found but not imported yet."""

    def __getattr__(self, name: str) -> Any:
        """Returns what stands for a name that may be late, or imports the module and returns the name of it."""
        if not is_loaded(self) and _may_be_late(self.__name__, name):
            return LateName(self, name)
        if is_loaded(self) and sys.modules.get(self.__name__) is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} is not imported yet and has no attribute {name!r}")
        return getattr(load(self), name)


class LateName:
    """Stands for a function or class of a module that is not imported yet, and imports it as soon as it is used."""

    def __init__(self, module: LateModule, name: str) -> None:
        self._late = module, name

    def _real(self) -> Any:
        module, name = self._late
        return getattr(load(module), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return is_loaded(self._late[0]) and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return is_loaded(self._late[0]) and issubclass(subclass, self._real())

    def __or__(self, other: Any) -> Any:
        return self._real() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real()

    def __eq__(self, other: object) -> bool:
        return bool(self._real() == (other._real() if isinstance(other, LateName) else other))

    def __hash__(self) -> int:
        return hash(self._real())


def is_loaded(module: ModuleType) -> bool:
    """Returns whether a late module has been imported."""
    return type(module) is not LateModule or "_real_module" in vars(module)


def load(module: LateModule) -> ModuleType:
    """Imports a late module in its place, if that has not happened yet, and returns the real one.

    The packages around it come first, as in any import.
    """
    with _LOCK:
        if isinstance(parent := _parent(module.__name__), LateModule):
            load(parent)
        if not is_loaded(module):
            spec = module.__spec__
            assert spec is not None and spec.loader is not None
            vars(module)["_real_module"] = module  # its own code may ask for what it has defined so far
            spec.loader.exec_module(module)
            if sys.modules.get(module.__name__) is module:
                object.__setattr__(module, "__class__", ModuleType)
    return sys.modules.get(module.__name__, module)  # some packages, such as transformers, put another in their place


def _may_be_late(module: str, name: str) -> bool:
    return bool(POLICY_NAME.fullmatch(name)) if POLICY_MODULE.fullmatch(module) else name in LATE.get(module, ())


class Finder(importlib.abc.MetaPathFinder):
    """Finds the late modules for `import`, before Python's own finders."""

    def __init__(self, policy_type: str) -> None:
        self.policy_type = policy_type

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of a module that is to be late; None for every other one."""
        if not self._is_late(fullname):
            if isinstance(parent := _parent(fullname), LateModule):
                load(parent)  # a part of it is needed
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec

    def _is_late(self, name: str) -> bool:
        if policy := POLICY_MODULE.fullmatch(name):
            return policy[1] not in (self.policy_type, *NO_POLICIES)
        return name in LATE


class _Loader(importlib.abc.Loader):
    """Makes a late module in place of a module, and runs the module's code where the module is loaded."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return LateModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if is_loaded(module):
            self.loader.exec_module(module)


def _parent(name: str) -> ModuleType | None:
    return sys.modules.get(name.rpartition(".")[0])


def install(policy_type: str) -> None:
    """Makes imports late from now on in this process, for an evaluation of a policy of this type.

    Does nothing for a type that is not in TYPES, or if imports are late already.
    """
    if policy_type in TYPES and not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(policy_type))


def policy_type(flags: Sequence[str]) -> str:
    """Returns the type of the policy in the local folder `--policy.path`; empty where nothing says it."""
    folders = [flag.removeprefix(PATH_FLAG) for flag in flags if flag.startswith(PATH_FLAG)]
    return str(files.read_or_empty(Path(folders[-1], "config.json")).get("type", "")) if folders else ""


def register_steps(folder: Path) -> None:
    """Imports all late modules if the processors of the checkpoint in `folder` have a step that is not registered.

    A module of another policy may register that step.
    """
    from lerobot.processor import ProcessorStepRegistry

    steps = [step for name in PROCESSORS for step in files.read_or_empty(folder / name).get("steps", ())]
    names = {step.get("registry_name") for step in steps if isinstance(step, dict)}
    if names - {None, *ProcessorStepRegistry.list()}:
        load_all()


def load_all() -> None:
    """Imports all late modules."""
    for module in list(sys.modules.values()):
        if isinstance(module, LateModule):
            load(module)
