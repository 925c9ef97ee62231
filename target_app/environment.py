"""Settings out of the environment: every fault at once, each by the name of its variable."""

import os
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from target_app.errors import StartupError

S = TypeVar("S", bound=BaseSettings)


def read(kind: type[S], prefix: str) -> S:
    """Read the settings that the variables with ``prefix`` hold.

    Raises StartupError that names every variable at fault; one that is no setting is a fault too.
    """
    known = {prefix + name.upper() for name in kind.model_fields}
    ours = [name for name in sorted(os.environ) if name.upper().startswith(prefix)]
    problems = [f"{name} is not a setting" for name in ours if name.upper() not in known]
    try:
        settings = kind()
    except ValidationError as error:
        problems += [f"{prefix}{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors()]
        raise StartupError("; ".join(problems)) from None
    if problems:
        raise StartupError("; ".join(problems))
    return settings
