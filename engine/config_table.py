"""What every table of shardwright.toml has in common."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
Share = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """One table of the file. TOML has no tuples and writes 1 for 1.0, so parsing is lax about just those."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def begun_at(self, folder: Path) -> Self:
        """The same table with every relative path in it begun at ``folder``."""
        moved = {name: _begun_at(getattr(self, name), folder) for name in type(self).model_fields}
        return self.model_copy(update={name: value for name, value in moved.items() if value != getattr(self, name)})


def tables(value: object) -> list[tuple[int, Mapping[str, Any]]]:
    """(position, table) of an array of tables in the raw file. What is none is left to the schema to tell."""
    found = value if isinstance(value, list) else []
    return [(position, table) for position, table in enumerate(found) if isinstance(table, Mapping)]


def url_begun_at(url: str | None, scheme: str, folder: Path) -> str | None:
    """Of ``scheme`` and a path; any other stays as it is, and so does what only looks like a path."""
    place = (url or "").removeprefix(scheme)
    if url is None or not place or not url.startswith(scheme) or "://" in place or place.startswith((":", "file:")):
        return url
    return f"{scheme}{_path_begun_at(Path(place), folder)}"


def _path_begun_at(path: Path, folder: Path) -> Path:
    with suppress(RuntimeError):  # ``~name`` that is nobody's home is a folder of that name
        path = path.expanduser()
    return folder / path


def _begun_at(value: Any, folder: Path) -> Any:
    if isinstance(value, Table):
        return value.begun_at(folder)
    if isinstance(value, Path):
        return _path_begun_at(value, folder)
    if isinstance(value, tuple):
        return tuple(_begun_at(one, folder) for one in value)
    if isinstance(value, dict):
        return {key: _begun_at(one, folder) for key, one in value.items()}
    return value
