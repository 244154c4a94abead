"""The keys of overrides, as they are typed on a command line."""


def key_of(override: str) -> str:
    """What stands before its value: of ``+model@method.teacher=mlp``, ``model@method.teacher``."""
    return override.lstrip("+~").partition("=")[0]


def changed_key(override: str) -> str:
    """The key of the configuration that it changes: of that one, ``method.teacher``."""
    return key_of(override).rpartition("@")[2]
