"""What every table of shardwright.toml has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
Share = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """One table of the file. TOML has no tuples and writes 1 for 1.0, so parsing is lax about just those."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
