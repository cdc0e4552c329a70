"""An SMTP server with a certificate of its own, and a page that sends by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from readers import Mailing, open_mailing


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mailing(tmp_path: Path, authority: trustme.CA) -> Iterator[Mailing]:
    """Two listed papers, no verdict, no subscriber."""
    with open_mailing(tmp_path, authority) as found:
        yield found
