"""What this node fetches over https: files that callers hand over, and the bundles of other trust domains."""

from crank.adapters.https_download.addresses import is_public
from crank.adapters.https_download.bundles import HttpsPublishers
from crank.adapters.https_download.files import HttpsDownloads

__all__ = ["HttpsDownloads", "HttpsPublishers", "is_public"]
