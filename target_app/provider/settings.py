"""How the provider behaves, read from the environment: ``PROVIDER_PAYMENT_MS=20`` sets ``payment_ms``.

The first four are factors of ticketbench's catalogue with the same name, default and levels; a contract test holds them
together.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from target_app.environment import read

PREFIX: Final = "PROVIDER_"


class ProviderSettings(BaseSettings):
    """The settings of one provider. Frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    payment_ms: Annotated[float, Field(ge=0, le=10_000, description="how long a payment takes, on average")] = 0.0
    payment_spread: Annotated[
        float, Field(ge=0, le=5, description="standard deviation of that, as a share of it; 0: always the same")
    ] = 0.0
    payment_limit: Annotated[int, Field(ge=0, le=10_000, description="payments served at a time; 0: no limit")] = 0
    payment_failure_ratio: Annotated[float, Field(ge=0, le=1, description="share of the charges that are declined")] = (
        0.0
    )
    seed: Annotated[int, Field(description="what durations and declined keys are drawn with")] = 1
    journal: Annotated[Path, Field(description="file that charges are kept in; what it holds is known again")]


def load() -> ProviderSettings:
    """Read the settings from the environment. Raises StartupError naming every variable at fault, unknown ones too."""
    return read(ProviderSettings, PREFIX)
