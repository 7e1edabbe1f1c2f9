"""Secrets in shardwright.toml: where they are read from, and how a URL that holds one is shown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import SecretStr, model_validator

from engine.config_table import Table
from engine.errors import AuthenticationFailed

SOURCE_FORM = 'env = "NAME" or file = "PATH"'


class SecretSource(Table):
    """Where a secret is read from; a literal in the file is refused."""

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError(f"give {SOURCE_FORM}")
        return self

    def read(self, path: str, environment: Mapping[str, str]) -> SecretStr:
        if self.env is not None:
            value = environment.get(self.env, "")
            if not value:
                raise AuthenticationFailed(
                    f"{path}: no credentials",
                    why=f"the environment variable {self.env} is not set",
                    next_step=f"export {self.env}=…",
                )
            return SecretStr(value)
        if self.file is not None:
            return SecretStr(self._in_file(self.file, path))
        raise AuthenticationFailed(f"{path}: no credentials", why=f"give {SOURCE_FORM}")

    def _in_file(self, file: Path, path: str) -> str:
        try:
            found, why = file.read_text(encoding="utf-8").strip(), "it is empty"
        except OSError as error:
            found, why = "", error.strerror or str(error)
        except UnicodeDecodeError:  # which would quote the secret
            found, why = "", "it is no text in UTF-8"
        if found:
            return found
        raise AuthenticationFailed(
            f"{path}: no credentials",
            why=f"{file}: {why}",
            next_step=f"put the secret into {file}, or name another file",
        )


_PASSWORD = re.compile(r"(://[^/?#\s:@]*:)\S*(?=@)")
_LONE_TOKEN = re.compile(r"(https?://)[^/?#\s:@]+(?=@)")
_PARAMETER = re.compile(r"([?&](?:[\w-]*(?:password|passwd|secret|token|key|sig|signature))=)[^&#\s]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Text with URLs in it, as it may be shown: what they sign in with stands as ``***``."""
    for sign in (_PASSWORD, _LONE_TOKEN, _PARAMETER):
        text = sign.sub(r"\1***", text)
    return text
