import pytest

from styleforge.analysis import FactorReader, ReaderConfig


@pytest.fixture(scope="session")
def reader():
    """One that has learnt what lies in plain sight: colours, the wall, the light."""
    return FactorReader.train(ReaderConfig(size=(16, 16), num_portraits=300, num_held_out=150, epochs=8, batch=32))
