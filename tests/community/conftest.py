"""An SMTP server with a certificate of its own, and a page that sends by it."""

from __future__ import annotations

from readers import authority, mailing

__all__ = ["authority", "mailing"]
