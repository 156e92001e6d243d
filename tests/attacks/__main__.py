"""Write the hostile images again: ``python -m tests.attacks``. The expected outcomes are written by hand."""

from __future__ import annotations

from tests.attacks.catalogue import IMAGES, made_images

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, content in made_images().items():
        (IMAGES / name).write_bytes(content)
