"""What a child process knows of the supervisor's environment: an allow-list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.adapter import Command

_BASE = frozenset(
    {
        "PATH",
        "HOME",  # a CLI's own login is there; an adapter with a private home sets it in Command.env
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",  # a check may test a terminal program; nothing is a terminal here anyway
        "TMPDIR",
        # Behind a company's proxy no TLS connection can be made without its certificates.
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO",
    }
)
# Not here, and why: keys (each agent gets only its own, by env_from); SSH_AUTH_SOCK, DBUS_*, XDG_*
# and other ways to the user's sockets and settings; proxies, which decide where the requests for a
# local model go; LD_*, NODE_OPTIONS, PYTHON*, GIT_*, which change what runs.


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every child may know of the supervisor's environment: an allow-list."""
    return {
        name: value for name, value in environ.items() if name in _BASE or name.startswith("LC_")
    }


def environment(
    command: Command,
    environ: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    env_from: Sequence[str] = (),
) -> dict[str, str]:
    """The whole environment of a command. Later ones win: base, the task's `env_from` and `env`,
    the command's own. Names that `environ` does not have are left out.
    """
    return {
        **base_environment(environ),
        **{name: environ[name] for name in env_from if name in environ},
        **(env or {}),
        **{name: environ[source] for name, source in command.env_from.items() if source in environ},
        **command.env,
    }
