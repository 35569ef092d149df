"""The environment as settings."""

import pytest

from inference_service.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_defaults():
    """Nothing has to be set, and an empty variable is one that is not set."""
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({"PORT": "", "REDIS_URL": ""}) == Settings()


def test_every_variable_is_read():
    """Each variable reaches its setting; milliseconds become seconds."""
    settings = Settings.from_environment(
        {
            "HOST": "127.0.0.1",
            "PORT": "81",
            "VERSION": "1.2.3-rc.1",
            "TOKEN_DELAY_MS": "20",
            "FAULT_LATENCY_MS": "400",
            "FAULT_ERROR_RATE": "0.03",
            "REDIS_URL": "redis://h",
            "MAX_GENERATIONS": "3",
            "MAX_CONNECTIONS": "4",
            "MAX_CONTEXTS": "5",
        }
    )
    assert settings == Settings(
        "127.0.0.1", 81, "1.2.3-rc.1", 0.02, 0.4, 0.03, "redis://h", 3, 4, 5
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.0"),
        ("PORT", "http"),
        ("VERSION", 'v"1'),
        ("VERSION", "v\n"),
        ("VERSION", "x" * 65),
        ("TOKEN_DELAY_MS", "-0.1"),
        ("TOKEN_DELAY_MS", "inf"),
        ("FAULT_LATENCY_MS", "nan"),
        ("FAULT_LATENCY_MS", "10001"),
        ("FAULT_ERROR_RATE", "1.01"),
        ("FAULT_ERROR_RATE", "3%"),
        ("MAX_GENERATIONS", "0"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONTEXTS", "0"),
    ],
)
def test_wrong_values_name_their_variable(name, value):
    """A value out of range is refused, and the error says which variable it is."""
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})
