"""Settings of a service: environment variables, or flags of the same name.

A setting `nats_url` is the variable `SKELGRAPH_NATS_URL` and the flag `--nats-url`;
the flag wins. `--help` lists them all with units and defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal, NoReturn, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

from proto.names import Pool
from services.runtime import urls as urls_of_engines
from services.runtime.credentials import Access

ENV_PREFIX = "SKELGRAPH_"


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, separated by commas")
    nats_creds: str | None = Field(None, description="path of a NATS credentials file")
    nats_ca: str | None = Field(
        None, description="path of the certificates that sign NATS's; none: those of the system"
    )
    nats_cert: str | None = Field(
        None, description="path of the certificate that is shown to NATS (mutual TLS)"
    )
    nats_key: str | None = Field(None, description="path of that certificate's key")
    partitions: int = Field(
        8, ge=1, le=256, description="partitions of the event log, the same in all services"
    )
    ack_wait_s: float = Field(
        10,
        ge=0.5,
        le=600,
        description="seconds after which a silent worker's message is redelivered",
    )
    cloud_events: bool = Field(
        False, description="facts carry the attributes of CloudEvents in headers (`ce-…`)"
    )
    drain_s: float = Field(
        30, ge=0, le=3600, description="seconds that running work may take after SIGTERM"
    )
    health_host: str = Field("127.0.0.1", description="address of /livez, /readyz and /metrics")
    health_port: int = Field(0, ge=0, le=65535, description="port of the same; 0: any free port")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line to log"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="console: for eyes; json: for a collector; auto: by the terminal"
    )

    log_texts: bool = Field(
        False, description="log prompts and texts too, at level debug; they are personal"
    )

    @field_validator("nats_creds", "nats_ca", "nats_cert", "nats_key")
    @classmethod
    def _readable(cls, path: str | None) -> str | None:
        if path is not None and not os.access(path, os.R_OK):
            raise ValueError(f"{path!r} is not a readable file")
        return path

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Name the variable of each setting in its help."""
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            variable = f"[{ENV_PREFIX}{name.upper()}]"
            if variable not in (field.description or ""):
                field.description = f"{field.description} {variable}"

    @classmethod
    def load(cls, argv: Sequence[str] | None = None) -> Self:
        """Read flags and environment; on a bad value say which and exit with 2."""
        args = list(sys.argv[1:] if argv is None else argv)
        try:
            return CliApp.run(cls, cli_args=args)
        except (ValidationError, SettingsError) as error:
            _complain(error)

    def servers(self) -> list[str]:
        """The NATS servers as a list."""
        return [server.strip() for server in self.nats_url.split(",") if server.strip()]

    def access(self) -> Access:
        """What is shown to them."""
        return Access(self.nats_creds, self.nats_ca, self.nats_cert, self.nats_key)


Urls = Annotated[tuple[str, ...], NoDecode]


class EngineSettings(ServiceSettings):
    """What a service that calls engines can be told."""

    large_urls: Urls = Field(
        (),
        description="engines of the large pool, separated by commas; dns+http://name:port stands "
        "for every address of a headless name",
    )
    small_urls: Urls = Field((), description="engines of the small pool, in the same form")
    large_model: str | None = Field(None, description="model name to ask the large pool for")
    small_model: str | None = Field(None, description="model name to ask the small pool for")
    engine_api_key: SecretStr | None = Field(None, description="bearer token for the engines")
    engine_dialect: Literal["auto", "tgi", "vllm", "sglang", "llamacpp", "plain"] = Field(
        "auto", description="what the engines speak; auto: ask them"
    )
    context_tokens: int = Field(
        8192,
        ge=2048,
        description="tokens of prompt and reply together that every engine takes; the oldest turns"
        " of a conversation are left out of prompts that would not fit",
    )
    connect_timeout_s: float = Field(2, gt=0, description="seconds to reach an engine")
    first_token_timeout_s: float = Field(60, gt=0, description="seconds until the first token")
    between_tokens_timeout_s: float = Field(30, gt=0, description="seconds between two tokens")
    total_timeout_s: float = Field(600, gt=0, description="seconds for one engine call")

    load_factor: float = Field(
        1.25,
        ge=1,
        le=100,
        description="most streams of an engine, as a multiple of its pool's mean; more keeps a "
        "request's calls together, less spreads them",
    )
    max_in_flight: int = Field(
        128, ge=1, description="most streams that this process gives an engine at once"
    )
    overload_wait_s: float = Field(
        10, ge=0, description="seconds that a call is tried again which all engines refuse as busy"
    )
    silent_after_s: float = Field(
        10, gt=0, description="seconds without any token after which an engine is left out"
    )
    hedge_percentile: float = Field(
        0,
        ge=0,
        lt=100,
        description="percentile of the first-token times after which a call goes to a second "
        "engine as well; 0: never",
    )
    resolve_every_s: float = Field(
        5, gt=0, description="seconds between two look-ups of a dns+http:// name"
    )

    def urls(self, pool: Pool) -> tuple[str, ...]:
        """The engines of `pool`.

        Raises:
            ValueError: none is named; says by which setting.
        """
        urls = self.large_urls if pool is Pool.LARGE else self.small_urls
        if not urls:
            raise ValueError(f"no engine is named for the {pool} pool: {_setting(f'{pool}_urls')}")
        return urls

    @field_validator("large_urls", "small_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(filter(None, map(str.strip, value.split(","))))
            if isinstance(value, str)
            else value
        )

    @field_validator("large_urls", "small_urls")
    @classmethod
    def _http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            urls_of_engines.check(url)
        return urls


def _setting(name: str) -> str:
    return f"--{name.replace('_', '-')} [{ENV_PREFIX}{name.upper()}]"


def _complain(error: ValidationError | SettingsError) -> NoReturn:
    if isinstance(error, ValidationError):
        for line in error.errors(include_url=False, include_input=False):
            where = f"{_setting(str(line['loc'][0]))}: " if line["loc"] else ""
            print(f"error: {where}{line['msg'].removeprefix('Value error, ')}", file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


__all__ = ["EngineSettings", "ServiceSettings", "Urls"]
