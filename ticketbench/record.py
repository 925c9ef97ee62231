"""What all records are: immutable, and strict about what they hold."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: immutable, and a key that nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
