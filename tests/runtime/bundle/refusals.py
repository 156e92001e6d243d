"""How a broken bundle must be refused."""

from collections.abc import Callable

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError


def refused(code: str, action: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        action()
    assert caught.value.code == code, caught.value
    assert caught.value.cure
    assert caught.value.artefact
    return caught.value


def opening(bundle: Bundle) -> Callable[[], object]:
    return lambda: Bundle.open(bundle.path)
