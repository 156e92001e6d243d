"""What ``doctor`` says of OpenVINO: its version, or why it cannot be used."""

from __future__ import annotations

from promptray.runtime.errors import PromptRayError


def openvino_state() -> str:
    """Import it, without its telemetry, and ask it for the processor."""
    try:
        from promptray.runtime.backends.openvino import state_here

        return f"ready: {state_here()}"
    except PromptRayError as error:
        return f"not ready: {error.message}; {error.cure}"
    except Exception as error:  # noqa: BLE001 - a library that is broken in a new way must not end the report
        return f"not ready: {type(error).__name__} while it was being looked for"
