from __future__ import annotations

from pathlib import Path

from crboost.service.directory import ServiceDirectory
from flows.service_environment import Access, client_environment, exported, server_environment

GIVEN = {
    "PATH": "/bin",
    "CRBOOST_SETTINGS": "/site.toml",
    "no_proxy": "intern.example",
    "PREFECT_API_KEY": "site-key",
    "PREFECT_PROFILE": "site-profile",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://site-host/prefect",
}
DIRECTORY = ServiceDirectory(Path("/service"))
ACCESS = Access("http://127.0.0.1:4200", "crboost:secret")


def test_nothing_of_the_callers_prefect_reaches_the_service() -> None:
    for environment in (
        client_environment(GIVEN, DIRECTORY, ACCESS),
        server_environment(GIVEN, DIRECTORY, ACCESS, None),
    ):
        assert (environment["PATH"], environment["CRBOOST_SETTINGS"]) == ("/bin", "/site.toml")
        assert not [value for value in environment.values() if value.startswith("site-")]
        assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & set(environment)
        assert environment["PREFECT_HOME"] == "/service/server"
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert environment["no_proxy"] == "intern.example,127.0.0.1,localhost,::1"


def test_the_database_is_sqlite_unless_another_is_named() -> None:
    name = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    sqlite = server_environment(GIVEN, DIRECTORY, ACCESS, None)
    assert sqlite[name] == "sqlite+aiosqlite:////service/server/prefect.db"
    url = "postgresql+asyncpg://me@db/prefect"
    assert server_environment(GIVEN, DIRECTORY, ACCESS, url)[name] == url
    assert name not in client_environment(GIVEN, DIRECTORY, ACCESS)


def test_without_a_login_none_is_asked_for_or_sent() -> None:
    access = Access(ACCESS.url, None)
    environment = server_environment(GIVEN, DIRECTORY, access, None)
    assert not [name for name in environment if "AUTH_STRING" in name]
    assert set(exported(ACCESS)) - set(exported(access)) == {"PREFECT_API_AUTH_STRING"}


def test_the_names_are_settings_of_this_prefect() -> None:
    """A setting that Prefect has renamed is ignored without a word."""
    from prefect.settings import Settings

    known = _names(Settings)
    environment = server_environment({}, DIRECTORY, ACCESS, None)
    ours = {name for name in environment if name.startswith("PREFECT_")}
    assert ours - known == {"PREFECT__SERVER_FINAL"}


def _names(model: type, prefix: str = "PREFECT") -> set[str]:
    """Environment variables of a settings model, aliases too."""
    found: set[str] = set()
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        found.add(f"{prefix}_{name}".upper())
        aliases = getattr(field.validation_alias, "choices", [])
        found |= {alias.upper() for alias in aliases if isinstance(alias, str)}
        if hasattr(field.annotation, "model_fields"):
            found |= _names(field.annotation, f"{prefix}_{name}")
    return found
