"""What a config gets wrong about a class (its name, its settings), told from the exception that building it ends in."""
import difflib
import inspect
import re
import traceback

ARGUMENT = re.compile(r"(?P<function>[\w.]+)\(\) (?:got an unexpected keyword argument '(?P<unknown>\w+)'"
                      r"|missing \d+ required (?:positional|keyword-only) arguments?: (?P<missing>.+))$")
CLASS = re.compile(r"'?(?P<type>[\w.]+) is not in the (?:\w+::)?(?P<registry>[\w ]+) registry\. ")


def explain_settings(error: BaseException) -> str | None:
    """A sentence about an object that mmengine could not build from a config, or None for any other exception.

    Example: ``ConvNeXt has no setting 'drop_path_rat' (the config has drop_path_rat=0.1); did you mean
    drop_path_rate?``
    """
    argument = ARGUMENT.search(str(error)) if type(error) is TypeError else None
    name = CLASS.match(str(error)) if type(error) is KeyError else None
    if not argument and not name:
        return None
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        local = frame.f_locals
        if frame.f_globals.get('__name__', '').startswith('mmengine.'):
            if name:
                return explain_name(name['type'], name['registry'], local.get('registry'))
            built = local.get('obj_cls', frame.f_globals.get(argument['function'].split('.')[0]))
            return explain_argument(argument, local, built)
    return None


def explain_name(name: str, kind: str, registry) -> str:
    """A sentence about a ``type`` that is in no registry of its kind."""
    while getattr(registry, 'parent', None) is not None:
        registry = registry.parent
    near = difflib.get_close_matches(name.split('.')[-1], sorted(names_of(registry)), n=1) if registry else []
    return f"type={name!r} of the config is not in the {kind} registry; " + (
        f'did you mean {near[0]}?' if near else 'name the module that registers it in custom_imports, or correct it')


def names_of(registry) -> set[str]:
    """The classes of a registry and of all below it."""
    return set(registry.module_dict).union(*(names_of(each) for each in registry.children.values()))


def explain_argument(found: re.Match, local: dict, built: type | None) -> str | None:
    """A sentence about a setting that is unknown or missing.

    Args:
        found: a match of ARGUMENT.
        local: local variables of the function of mmengine that was building.
        built: the class.
    """
    if not inspect.isclass(built):
        return None
    if found['missing']:
        if found['function'].split('.')[0] not in {each.__name__ for each in built.__mro__}:
            return None  # of something that the class builds by itself: no mistake of the config
        return f'{built.__name__} needs {found["missing"]}, which the config does not have: add it'
    key = found['unknown']
    given = next((each for each in local.values() if isinstance(each, dict) and key in each), None)
    if given is None:  # a class passed it on by itself: no mistake of the config
        return None
    known = {name for each in built.__mro__ if '__init__' in vars(each)
             for name, parameter in inspect.signature(each.__init__).parameters.items()
             if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)} - {'self'}
    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f'{built.__name__} has no setting {key!r} (the config has {key}={given[key]!r})' + (
        f'; did you mean {near[0]}?' if near else f'; it has {", ".join(sorted(known))}')
