"""Refuses requests that another site made a browser send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.datastructures import Headers

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def from_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that the request comes from a page of another origin.

    A client that is no browser sends neither header and passes; it has no cookies of a victim.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    # A page cannot make a browser forge X-Forwarded-Host, so it is as good as Host behind a proxy that rewrites that.
    hosts = {headers.get("host", ""), *headers.get("x-forwarded-host", "").replace(" ", "").split(",")}
    try:
        origin_host = urlsplit(origin).netloc.lower()
    except ValueError:
        # "http://[" and the like: no browser sends it, and it is no origin of ours.
        return True
    return not origin_host or origin_host not in {host.lower() for host in hosts}
