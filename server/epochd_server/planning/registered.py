"""The registered modules as planning sees them."""

from __future__ import annotations

from functools import lru_cache

from epochd_server.domain.errors import FieldViolation, InvalidInput
from epochd_server.domain.specs import ModuleModel
from epochd_server.engine.inspection import construct, output_size
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.planning.ports import ModuleFacts

_REMEMBERED = 1_024
_Key = tuple[tuple[str, type, bool | int | float | str], ...]


class RegisteredModules:
    """Looks at registered modules once for each set of arguments and number of features.

    Args:
        registry: The modules; what it holds does not change any more.
    """

    def __init__(self, registry: ModuleRegistry) -> None:
        self._registry = registry
        self._remembered = lru_cache(_REMEMBERED)(self._look_at)

    def inspect(self, model: ModuleModel, features: int | None) -> ModuleFacts:
        """Constructs the module and, where the number of features is known, tries its forward on their shape.

        Raises:
            EpochdError: MODULE_NOT_FOUND.
            InvalidInput: Its constructor refuses the arguments, its forward the features, or it has nothing to train.
        """
        # 1, 1.0 and True are equal keys, but not equal to a constructor.
        arguments = tuple((name, type(value), value) for name, value in sorted(model.arguments.items()))
        return self._remembered(model.name, arguments, features)

    def _look_at(self, name: str, arguments: _Key, features: int | None) -> ModuleFacts:
        model = ModuleModel(name=name, arguments={key: value for key, _, value in arguments})
        module = construct(model, self._registry, on_meta=True)
        count = sum(p.numel() for p in module.parameters() if p.requires_grad)
        if not count:
            problem = f"{name} has no trainable parameter: there is nothing to train"
            raise InvalidInput([FieldViolation("model.module", problem)])
        outputs = None if features is None else output_size(model, features, modules=self._registry)
        return ModuleFacts(count, outputs)
