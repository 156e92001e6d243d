"""Coverage-guided fuzzing: ``python -m tests.fuzz dicom --seconds 600``.

libFuzzer, through atheris, changes the seeds and keeps what reaches new lines of PromptRay and pydicom. An
input that raises anything but a refusal, hangs, or takes too much memory is written to the folder of
findings and printed, and the exit code is not 0. The corpus that grew is kept for the next run. Copy a
finding to ``tests/fuzz/findings/TARGET`` when it is mended: the tests try it again for ever.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

#: A decoder may need 64 million pixels of 32 bits and a copy; more is a bomb that got through.
RSS_LIMIT_MB = 1536
SECONDS_PER_INPUT = 10
LARGEST_INPUT = 65536
#: Whose lines guide the choice of inputs. atheris never frees the result of a comparison that is an array,
#: so modules that compare pixels are left out: an hour of fuzzing would seem to be a leak of ours.
GUIDED_BY = ("promptray", "pydicom")
NOT_BY = tuple(f"promptray.runtime.{name}" for name in ("dicom.greyscale", "dicom.greyscale_reference"))


def main(arguments: list[str]) -> None:
    """Fuzz one target; libFuzzer ends the process. Without atheris, say so and return."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz one target.")
    parser.add_argument("target", help="dicom, png, jpeg, bundle or recipe")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--seconds", type=int, help="stop after this time")
    limit.add_argument("--runs", type=int, help="stop after this many inputs: the same on every machine")
    parser.add_argument("--seed", type=int, default=0, help="of libFuzzer's choices; 0: another each time")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="for corpus and findings")
    options = parser.parse_args(arguments)
    try:
        import atheris
    except ImportError:
        print("fuzzing was not run: atheris has no wheel for this machine (Linux x86-64, CPython >= 3.11)")
        return
    with atheris.instrument_imports(include=GUIDED_BY, exclude=NOT_BY):
        from tests.fuzz.targets import TARGETS
    if options.target not in TARGETS:
        parser.error(f"no such target; there are {', '.join(TARGETS)}")
    target = TARGETS[options.target]
    corpus, findings = (options.folder / options.target / kind for kind in ("corpus", "findings"))
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for content in target.seeds().values():
        (corpus / hashlib.sha1(content, usedforsecurity=False).hexdigest()).write_bytes(content)
    words = options.folder / options.target / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words), encoding="ascii")
    flags = [
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-report_slow_units={SECONDS_PER_INPUT}",
        f"-max_len={LARGEST_INPUT}",
        f"-artifact_prefix={findings}/",
        f"-dict={words}",
        f"-seed={options.seed}",
        "-keep_seed=1",  # seeds that reach the same lines are still different formats
        "-len_control=0",  # nor are long inputs left for later
        "-print_final_stats=1",
        f"-max_total_time={options.seconds}" if options.seconds else f"-runs={options.runs}",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1:])
