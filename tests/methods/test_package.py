"""What can be imported from the package itself."""

import pytest
from helpers import METHODS, compose
from hydra.utils import get_class

from kd_lightning import methods


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_imported_from_the_package(method: str) -> None:
    cls = get_class(compose(f"method={method}").method._target_)
    assert cls.__name__ in methods.__all__
    assert getattr(methods, cls.__name__) is cls


def test_every_name_is_there() -> None:
    assert sorted(methods.__all__) == methods.__all__
    assert all(hasattr(methods, name) for name in methods.__all__)
