"""Files of others, fetched for a caller."""

from typing import Protocol


class Downloads(Protocol):
    """Fetches what a link names. Which hosts may be asked is decided before; where the name leads, here."""

    async def fetch(self, url: str, *, bytes_max: int) -> bytes:
        """Return the bytes behind an https address, whole; nothing else is asked and no redirect is followed.

        url  as `domain.rules.file_links` accepted it
        Raises NotAllowed (`file_link_refused`: it leads into a private network, or elsewhere), TooLarge,
        Unavailable (`file_link_failed`: it did not answer as it should).
        """
        ...
