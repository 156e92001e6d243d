"""CARZero's head beside its image side, for more and more prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.own import first_picture
from benchmarks.peers.result import HeadShare, Target, interval
from promptray.runtime.backends import HOST, load_backend
from promptray.runtime.bundle import Bundle
from promptray.runtime.deadline import Deadline
from promptray.runtime.graphs import Graphs
from promptray.runtime.packs import read_pack
from promptray.runtime.prompts import BankEntry, PromptBank

#: Prompts -> greatest share.
_WANTED = {14: 0.08, 192: 0.35}


def head_shares(path: Path, prompts: Sequence[int], *, rounds: int, threads: int) -> Iterator[HeadShare]:
    """Score one picture again and again, with each number of prompts; give the stages' times.

    Beyond those of the pack, prompts are the pack's once more under other names.
    """
    bundle = Bundle.open(path)
    pixels = first_picture(path)
    (head,) = bundle.manifest.heads
    graphs = Graphs(bundle, load_backend(HOST, threads=threads), prompts_per_batch=None)
    entries: list[BankEntry] = [
        graphs.encode(each.key, each.prompts) for each in read_pack("padchest192").findings[: max(prompts)]
    ]
    for count in prompts:
        named = [replace(entries[n % len(entries)], key=f"finding {n}") for n in range(count)]
        chain = graphs.chain([graphs.bind(head, PromptBank(head.bank, named))])
        image, scored = [], []
        for number in range(rounds + 2):
            _, timing = chain.submit(pixels, Deadline(None, None)).result()
            if number >= 2:  # the first calls are warm-up
                image.append(timing["image"])
                scored.append(timing["head"])
        yield HeadShare(
            prompts=count,
            rounds=rounds,
            image=interval(image),
            head=interval(scored),
            share=interval([own / side for own, side in zip(scored, image, strict=True)]),
        )


def targets(found: Sequence[HeadShare]) -> list[Target]:
    """Return the design's targets."""
    return [
        Target(
            what=f"CARZero, {each.prompts} prompts: time of the head over that of the image side",
            wanted=f"<= {_WANTED[each.prompts]}",
            found=str(each.share),
            met=each.share.median <= _WANTED[each.prompts],
        )
        for each in found
        if each.prompts in _WANTED
    ]


def show(found: HeadShare) -> None:
    """Print one."""
    print(f"CARZero, {found.prompts} prompts, {found.rounds} rounds")
    print(f"  image side, ms {found.image}\n  head, ms       {found.head}\n  share          {found.share}")
