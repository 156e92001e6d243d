"""Which site directory a scorer uses: the user's own, a given one, or none."""

from __future__ import annotations

import enum
import os
from typing import Final, Literal

from promptray.runtime.errors import BundleError
from promptray.runtime.site import Site


class _UserSite(enum.Enum):
    """A value of its own, so that no folder name can be mistaken for it."""

    USER_SITE = "the user's data folder"


#: Pass as ``site`` to use the user's own data folder, the default.
USER_SITE: Final = _UserSite.USER_SITE
SiteChoice = str | os.PathLike[str] | Literal[_UserSite.USER_SITE] | None


def open_site(choice: SiteChoice, bundle_hash: str) -> Site | None:
    """Open the chosen site of a bundle; None for none.

    Raises
    ------
    BundleError
        ``site.not-found`` for a folder that is not there or an empty name; ``site.corrupt``.
    """
    if choice is None:
        return None
    if choice is USER_SITE:
        return Site.open(None, bundle_hash)
    if not os.fspath(choice):
        raise BundleError(
            "site.not-found",
            "the site directory has no name",
            found="an empty path",
            cure="name a directory, or leave the option out to use the user's data folder",
        )
    return Site.open(choice, bundle_hash)
