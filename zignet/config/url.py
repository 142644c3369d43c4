"""URLs that may hold a secret: a database's password, the key of a chain's RPC service."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlsplit

__all__ = ["Url", "database_url", "rpc_url"]

_SECRET_WORDS = ("pass", "key", "token", "secret", "auth")  # in the name of a query's parameter
_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")
_SQLITE = ("sqlite", "sqlite+aiosqlite")
_FORMS = "postgresql://user@host/database or sqlite:///members.db"


class Url:
    """Compared by its text; shown without what may be secret in it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text  # whole: for whoever connects, and for nobody else

    @property
    def holds_secret(self) -> bool:
        """A password, or a parameter that is called like one."""
        parts = urlsplit(self.text)
        names = (name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True))
        return bool(parts.password) or any(word in name for name in names for word in _SECRET_WORDS)

    def __str__(self) -> str:
        parts = urlsplit(self.text)
        user, at, host = parts.netloc.rpartition("@")
        name, colon, _ = user.partition(":")
        path = parts.path
        if parts.scheme in ("http", "https"):  # services put their customers' keys there
            path = "/…" if path.strip("/") or parts.query else path
        return f"{parts.scheme}://{name}{':***' if colon else ''}{at}{host}{path}"

    def __repr__(self) -> str:
        return f"<Url {self}>"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Url) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)


def database_url(text: str) -> Url:
    """`postgresql://…` or `sqlite:///path`. Raises `ValueError`, whose text holds no piece of it but the scheme."""
    parts = _split(text, _FORMS)
    if parts.scheme in _POSTGRESQL:
        if not parts.path.strip("/"):
            raise ValueError("the URL names no database: postgresql://user@host/database")
        return Url("postgresql" + text[len(parts.scheme) :])
    if parts.scheme in _SQLITE:
        if parts.netloc or not parts.path.strip("/"):
            raise ValueError(
                "the file goes behind three slashes: sqlite:///members.db, sqlite:////var/lib/members.db"
            )
        if parts.query or parts.fragment:
            raise ValueError("a URL of SQLite is a path and nothing else: sqlite:///members.db")
        return Url("sqlite" + text[len(parts.scheme) :])
    raise ValueError(f"expected {_FORMS}")


def rpc_url(text: str) -> Url:
    """`http://…` or `https://…`. Raises `ValueError`, as above."""
    form = "http://127.0.0.1:8899 or https://rpc.example/"
    parts = _split(text, form)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL such as {form}")
    return Url(text)


def _split(text: str, form: str) -> SplitResult:
    """The parts of what is a URL by its form; what Python says of others may quote the password."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 -- raises
    except ValueError:
        parts = None
    if (
        parts is None
        or not text.isprintable()
        or " " in parts.netloc
        or not text.startswith(f"{parts.scheme}://")
    ):
        raise ValueError(f"this is not a URL such as {form}")
    return parts
