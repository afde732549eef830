"""Placement by its own API, over the network or inside this process over an SQLite file.

Both ways hand out the same keystoneauth1 adapter, so that all that follows is one path. The
packages that this needs are the extra ``ramshelf[placement]``, and are imported when Placement is
first asked for something.
"""

import fcntl
import functools
import logging
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ramshelf.core.config import Config
from ramshelf.core.errors import ConfigError, HostError, RamshelfError, ServiceError
from ramshelf.core.placement import MICROVERSION
from ramshelf.core.secrets import hide, secret_values, without_secrets

_PATIENCE = 10
"""Seconds to wait for an answer where ``[placement] timeout`` does not say.

keystoneauth1 itself waits for ever.
"""

_LOGGERS = ("alembic", "keystoneauth", "oslo_db", "oslo_policy", "placement")
"""Loggers that are silenced: what they have to say comes back as an answer or an error."""


@dataclass(frozen=True)
class Answer:
    """An answer of Placement; ``document`` is empty where it says nothing, or nothing in JSON."""

    status: int
    document: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether Placement did what it was asked."""
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """Placement's own code for an error, such as ``placement.concurrent_update``."""
        return str(self._error.get("code", ""))

    @property
    def detail(self) -> str:
        """Placement's words for an error, in one line."""
        return " ".join(str(self._error.get("detail", "")).split()).rstrip(".")

    @property
    def _error(self) -> Mapping[str, Any]:
        errors = self.document.get("errors")
        return errors[0] if errors and isinstance(errors[0], dict) else {}


class PlacementApi:
    """A connection, made at the first request and kept until ``close``.

    This is a context manager, for one thread.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._embedded = config.placement_mode == "embedded"
        self._adapter: Any = None
        self._inode: int | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens it anew."""
        self._adapter = self._inode = None
        self._open.close()

    def ask(self, method: str, path: str, document: object = None) -> Answer:
        """Return what Placement answers to a request.

        The request was done (2xx), or what it names is not there (404), or it cannot be done like
        that (400, 409). Any other answer, and none, raises ServiceError ``placement.*``. A
        configuration that cannot be used raises ConfigError ``placement.configuration``, and
        missing packages raise HostError.
        """
        with self._turn():
            try:
                if self._adapter is None or self._inode not in {None, self._database_inode()}:
                    self.close()
                    self._adapter = self._opened()
                response = self._adapter.request(
                    path,
                    method,
                    json=document,
                    microversion=MICROVERSION,
                    headers={"Accept": "application/json"},
                    raise_exc=False,
                )
                self._inode = self._inode or self._database_inode()
                return _answer(response, method, path)
            except RamshelfError as error:
                raise without_secrets(error, self._secrets()) from error
            except Exception as error:
                if self._embedded:
                    self.close()  # a connection to a file that is no database would stay one
                translated = _translated(error, hide(str(error), self._secrets()))
                if translated is None:
                    raise
                raise translated from error

    def _secrets(self) -> frozenset[str]:
        """Return the secrets that libraries and servers may quote.

        Others than root may read our errors, so these are hidden in them.
        """
        settings = ((setting.key, setting.value) for setting in self._config.settings.values())
        return secret_values((*self._config.placement.items(), *settings))

    def _opened(self) -> Any:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if not logging.getLogger().handlers:
            # Else oslo.log adds a handler that prints.
            logging.getLogger().addHandler(logging.NullHandler())
        try:
            if self._embedded:
                return self._open.enter_context(_embedded(self._config.placement_database))
            return _remote(self._config)
        except ImportError as error:
            raise HostError(
                "placement.not-installed",
                f"Placement cannot be used: the Python package {error.name} is not installed.",
                hint="pip install 'ramshelf[placement]'.",
                facts={"package": error.name},
            ) from error

    def _database_inode(self) -> int | None:
        """Return the inode of an embedded Placement's file, or 0 where it is missing.

        SQLite would go on with a file that was removed or replaced. Return None where Placement is
        not embedded.
        """
        if not self._embedded:
            return None
        try:
            return os.stat(self._config.placement_database).st_ino
        except FileNotFoundError:
            return 0

    def _turn(self) -> Any:
        """Return a context in which no other process has an embedded Placement.

        Without it SQLite would fail instead of waiting.
        """
        if not self._embedded:
            return nullcontext()
        return _locked(f"{self._config.placement_database}.lock")


def _remote(config: Config) -> Any:
    """Return an adapter as nova-compute would make it from ``[placement]``."""
    from keystoneauth1 import loading  # noqa: PLC0415 - an extra, and slow

    from ramshelf.system.options import opened  # noqa: PLC0415 - oslo.config is slow

    group = "placement"
    auth_section = config.placement.get("auth_section", "").strip()
    conf = opened(config.files, config.settings, but_for={group, auth_section})
    loading.register_session_conf_options(conf, group)
    loading.register_auth_conf_options(conf, group)
    loading.register_adapter_conf_options(conf, group, include_deprecated=False)
    for name, value in {
        "timeout": _PATIENCE,
        "service_type": "placement",
        "valid_interfaces": ["internal", "public"],  # Nova's default
    }.items():
        conf.set_default(name, value, group=group)
    auth = loading.load_auth_from_conf_options(conf, group)
    session = loading.load_session_from_conf_options(conf, group, auth=auth)
    _require_keystone(session, getattr(auth, "auth_url", None))
    return loading.load_adapter_from_conf_options(conf, group, session=session, auth=auth)


def _require_keystone(session: Any, url: str | None) -> None:
    """Refuse an auth_url that wants credentials before it says what it is.

    No Keystone does that. keystoneauth1 would then authenticate in the middle of authenticating,
    and wait for its own lock for ever.
    """
    if url and session.get(url, authenticated=False, raise_exc=False).status_code == 401:
        raise ServiceError(
            "placement.unauthorized",
            f"What answers at the auth_url {url} is no Keystone: it asks for credentials at once.",
            hint="Compare auth_url in [placement] with a nova.conf that works.",
            facts={"auth_url": url},
        )


@contextmanager
def _embedded(database: str) -> Iterator[Any]:
    """Yield an adapter for the real Placement in this process, over an SQLite file.

    Placement makes that file, and brings it up to date.
    """
    from oslo_config import cfg  # noqa: PLC0415 - slow
    from placement import conf as placement_conf  # noqa: PLC0415 - an extra, and slow
    from placement import db_api  # noqa: PLC0415
    from placement.direct import PlacementDirect  # noqa: PLC0415
    from placement.objects import resource_class, trait  # noqa: PLC0415

    # The database may be a new one, so it has to be seen whether the standard ones are in it:
    # Placement's own fixtures do the same.
    trait._TRAITS_SYNCED = resource_class._RESOURCE_CLASSES_SYNCED = False  # noqa: SLF001

    conf = cfg.ConfigOpts()
    placement_conf.register_opts(conf)
    conf.set_override("connection", f"sqlite:///{database}", group="placement_database")
    conf.set_override("sync_on_startup", True, group="placement_database")
    conf.set_override("max_retries", 0, group="placement_database")
    conf([], project="placement", default_config_files=[], default_config_dirs=[], use_env=False)
    # SQLite gives its own files beside this one the same mode.
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db_api.configure(conf)
    direct = PlacementDirect(conf)
    # Else it is made anew, database and all, for each request.
    direct.app = functools.cache(direct.app)
    with _without_proxy(), ExitStack() as stack:
        adapter = stack.enter_context(direct)
        adapter.session.session.trust_env = False
        stack.callback(db_api.get_placement_engine().dispose)
        yield adapter


@contextmanager
def _locked(path: str) -> Iterator[None]:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(
            "placement.database",
            f"The embedded Placement's lock {path} cannot be opened: "
            f"{os.strerror(error.errno or 0).lower()}.",
            hint="Run it as root, or name another file: [ramshelf] placement_database.",
            facts={"path": path},
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _without_proxy() -> Iterator[None]:
    """Have no HTTP proxy in the environment meanwhile.

    The interception of requests refuses to work with one.
    """
    taken = {
        name: os.environ.pop(name) for name in ("http_proxy", "https_proxy") if name in os.environ
    }
    try:
        yield
    finally:
        os.environ.update(taken)


def _answer(response: Any, method: str, path: str) -> Answer:
    """Return the answer, where it is one that Placement gives to a request that it can serve.

    Raises ServiceError for any other.
    """
    status = int(response.status_code)
    try:
        document = response.json() if response.content else {}
    except ValueError:
        document = None
    answer = Answer(status, document if isinstance(document, dict) else {})
    facts = {"method": method, "path": path, "status": status, "answer": answer.detail}
    if status == 401:
        raise _unauthorized("Placement does not know these credentials", facts)
    if status == 403:
        raise ServiceError(
            "placement.forbidden",
            "Placement does not allow this to the user of [placement].",
            hint=(
                "The user needs the role service (or admin) in the project that [placement] names."
            ),
            facts=facts,
        )
    if status == 406:
        raise ServiceError(
            "placement.too-old",
            f"Placement does not offer its API version {MICROVERSION}: it is older than Rocky.",
            hint="Upgrade Placement.",
            facts=facts,
        )
    if status >= 500 or document is None or not (answer.ok or answer.code):
        what = answer.detail or (
            "no answer of Placement's" if status < 500 else response.reason or "no reason"
        )
        raise ServiceError(
            "placement.error",
            f"Placement answers {status} to {method} {path}: {what}.",
            hint="See Placement's log, and that [placement] names its endpoint.",
            facts=facts,
        )
    return answer


def _unauthorized(sentence: str, facts: Mapping[str, object]) -> ServiceError:
    return ServiceError(
        "placement.unauthorized",
        f"{sentence}.",
        hint=(
            "Compare [placement] with a nova.conf that works; both need a user of the service "
            "project."
        ),
        facts=facts,
    )


_MEANINGS = (
    ("ConnectTimeout", "placement.timeout", "does not answer in time"),
    ("Unauthorized", "placement.unauthorized", ""),
    ("AuthorizationFailure", "placement.unauthorized", ""),
    ("MissingAuthPlugin", "placement.configuration", ""),
    ("AuthPluginException", "placement.configuration", ""),
    ("SSLError", "placement.tls", "cannot be trusted, or does not speak TLS"),
    ("CatalogException", "placement.no-endpoint", "is not in the catalogue of services"),
    ("DiscoveryFailure", "placement.unreachable", "or its Keystone cannot be reached"),
    ("ConnectionError", "placement.unreachable", "cannot be reached"),
    ("Exception", "placement.error", "fails"),
)
"""The exceptions of keystoneauth1, the particular before the general.

Each has our code, and what Placement does.
"""

_HINTS = {
    "placement.timeout": "See that it runs; [placement] timeout says how many seconds are waited.",
    "placement.tls": (
        "Set cafile in [placement] to the certificate authority that signed its certificate."
    ),
    "placement.no-endpoint": "Check region_name, valid_interfaces and service_type in [placement].",
    "placement.unreachable": "See that it runs, and that [placement] names it as nova.conf does.",
    "placement.error": "See Placement's log.",
}


def _short(text: str) -> str:
    """Return the beginning of what a library says, up to where it repeats itself or quotes SQL."""
    beginning = re.split(r": HTTPS?ConnectionPool|\(Background on this error|\[SQL:", text)[0]
    return textwrap.shorten(beginning.strip(" .:"), 200, placeholder=" ...")


def _translated(error: Exception, message: str) -> RamshelfError | None:
    """Return our error for an error of a library that Placement is used with.

    Return None for a mistake of ours. ``message`` is what the error says, without secrets.
    """
    text = _short(message)
    facts = {"message": message, "exception": type(error).__name__}
    library = type(error).__module__.partition(".")[0]
    if library in {"sqlalchemy", "oslo_db", "sqlite3", "alembic"}:
        return ServiceError(
            "placement.database",
            f"The embedded Placement's database cannot be used: {text}.",
            hint=(
                "See that the disk is not full. Its contents can be lost without harm: remove the "
                "file that [ramshelf] placement_database names, and the next report fills a new "
                "one."
            ),
            facts=facts,
        )
    # "Invalid IPv6 URL" is what urllib says of a [ without its ].
    if library == "oslo_config" or message == "Invalid IPv6 URL":
        return ConfigError(
            "placement.configuration", f"[placement] cannot be used: {text}.", facts=facts
        )
    if library != "keystoneauth1":
        return None
    ancestors = {kind.__name__ for kind in type(error).__mro__}
    _, code, does = next(meaning for meaning in _MEANINGS if meaning[0] in ancestors)
    if code == "placement.unauthorized":
        return _unauthorized(
            f"Keystone does not accept the credentials of [placement]: {text}", facts
        )
    if code == "placement.configuration":
        return ConfigError(
            code,
            f"[placement] cannot be used: {text}.",
            hint="It needs auth_type and what that type needs, as in nova.conf.",
            facts=facts,
        )
    return ServiceError(code, f"Placement {does}: {text}.", hint=_HINTS[code], facts=facts)
