"""Asks this container's own process whether it is well: `healthcheck.py [/livez | /readyz | http://…]`.

Ends with 0 for an answer of 200, else with 1 and what was answered. The port is GPUFLEET_HTTP_PORT, as the services
have it; a full address is taken as it is. The standard library only: it runs every few seconds.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 4.0


def main(arguments: list[str]) -> str | None:
    """Returns None where all is well, else why not."""
    target = arguments[0] if arguments else "/livez"
    port = os.environ.get("GPUFLEET_HTTP_PORT", "8080")
    url = f"http://127.0.0.1:{port}{target}" if target.startswith("/") else target
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  our own process
            return None if response.status == 200 else f"{url} answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code}: {error.read(2000).decode(errors='replace').strip()}"
    except (OSError, ValueError) as error:
        return f"{url} does not answer: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
