"""A bundle's graphs, compiled and bound: features of an image, scores against banks, rows of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import (
    HOST,
    Backend,
    BoundGraph,
    Chain,
    Graph,
    Pending,
    Preparing,
    load_backend,
    no_prepare,
    require_finite,
    require_leading,
)
from promptray.runtime.bank_file import unpack
from promptray.runtime.bank_precision import rounded
from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.manifest import BankRule, Head, Manifest
from promptray.runtime.deadline import Deadline
from promptray.runtime.engines.facts import EngineGate, EngineSet
from promptray.runtime.ensemble import combine
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.fixed_set import require_whole
from promptray.runtime.graph_choice import engine_graph, gated_graph
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.prompts import BankBatch, BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder, require_text
from promptray.runtime.wording import require_wordings

Array = NDArray[Any]

#: In reproducible mode every head call has this many prompts, the last one padded.
REPRODUCIBLE_PROMPTS = 16


class BundleContent(Protocol):
    """What is needed of a bundle: its facts and its files. A build gives one that is not on disk yet."""

    @property
    def manifest(self) -> Manifest:
        """All facts."""
        ...

    @property
    def short_hash(self) -> str:
        """Name for errors."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content, checked against its hash."""
        ...


def own_bank(bundle: BundleContent, head: Head) -> PromptBank:
    """Read the prompt bank that a bundle carries for one of its heads.

    Raises
    ------
    BundleError
        ``bundle.foreign-bank`` or ``bundle.hash``; ``bundle.format`` when it is no whole bank.
    """
    rule = head.bank
    bank = unpack(bundle.read(rule.file), rule, artefact=rule.file)
    findings = bundle.manifest.findings_of(head.name)
    stated = [(each.key, each.prompts, each.negative_prompts) for each in findings]
    if [(entry.key, *entry.texts) for entry in bank] != stated:
        raise BundleError(
            "bundle.foreign-bank",
            "the prompt bank does not hold the manifest's findings of its head in their order",
            artefact=rule.file,
            expected=", ".join(key for key, *_ in stated)[:200],
            found=", ".join(bank.keys)[:200],
            cure="build the bundle again",
        )
    return bank


@dataclass(frozen=True, eq=False)
class BoundBatch:
    """Prompts that go through the head in one call.

    Attributes
    ----------
    positions : int array, (n,)
        Place of each in the bank.
    size : int
        Prompts of the call, padding included.
    graph : BoundGraph
    """

    positions: NDArray[np.intp]
    size: int
    graph: BoundGraph


@dataclass(frozen=True, eq=False)
class BoundHead:
    """A head with its bank resident: one bound graph for each batch of prompts, none without prompts."""

    batches: tuple[BoundBatch, ...]

    @classmethod
    def of(cls, graph: Graph, batches: Iterable[BankBatch]) -> BoundHead:
        """Make batches of a bank resident in a head's graph."""
        return cls(tuple(BoundBatch(each.positions, each.size, graph.bind(each.tensors)) for each in batches))

    @property
    def prompts(self) -> int:
        """How many prompts the bank holds."""
        return sum(len(batch.positions) for batch in self.batches)

    def run(self, features: Mapping[str, Array]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score image features against every prompt of the bank, which holds at least one.

        On a backend that runs one graph after the other; :meth:`Graphs.chain` is for all of them.

        Parameters
        ----------
        features : dict of str to array
            Outputs of the image graph for B images.

        Returns, Raises
        ---------------
        As :meth:`collect`.
        """
        images = len(next(iter(features.values())))
        return self.collect((batch.graph.run(features) for batch in self.batches), images)

    def collect(
        self, found: Iterable[Mapping[str, Array]], images: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Put the outputs of all batches together, without padding.

        Parameters
        ----------
        found : iterable of dict of str to array
            Outputs of the head's graph for each batch.
        images : int
            How many were scored.

        Returns
        -------
        logits : float32 (B, prompts)
        maps : float32 (B, prompts, grid rows, grid columns), or None where the head gives none

        Raises
        ------
        ScoringError
            ``score.not-finite`` or ``backend.failed``.
        """
        logits: NDArray[np.float32] | None = None
        maps: NDArray[np.float32] | None = None
        for batch, outputs in zip(self.batches, found, strict=True):
            positions = batch.positions
            # One column or row would be spread over all findings or images, and look like scores of each.
            require_leading(outputs, (images, batch.size), "head")
            kept = {name: values[:, : len(positions)] for name, values in outputs.items()}
            require_finite(kept, "head")
            if logits is None:
                logits = np.empty((len(kept["logits"]), self.prompts), np.float32)
            logits[:, positions] = kept["logits"]
            if "maps" in kept:
                if maps is None:
                    maps = np.empty((*logits.shape, *kept["maps"].shape[2:]), np.float32)
                maps[:, positions] = kept["maps"]
        if logits is None:
            raise PromptError(
                "prompt.unknown",
                "there is no finding to score",
                cure="add one: scorer.prompts.add(key, prompt), or `promptray prompts BUNDLE add`",
            )
        return logits, maps


#: Scores of one head: logits float32 (B, prompts), and maps (B, prompts, grid rows, grid columns) or None.
HeadScores = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class PendingScores:
    """Images that were submitted to a chain."""

    def __init__(self, pending: Pending, heads: Sequence[BoundHead], images: int) -> None:
        self._pending, self._heads, self._images = pending, heads, images

    def done(self) -> bool:
        """Tell whether the scores are there; never waits."""
        return self._pending.done()

    def result(self) -> tuple[list[HeadScores], Mapping[str, float]]:
        """Wait, and return the scores of each head, and the milliseconds of each stage.

        Raises
        ------
        ScoringError
            ``score.not-finite``, ``score.deadline``, ``score.cancelled``, ``backend.*``.
        """
        outputs = self._pending.result()
        each = iter(outputs.heads)
        found = [head.collect((next(each) for _ in head.batches), self._images) for head in self._heads]
        return found, outputs.timing


class BoundChain:
    """The image side and heads with their banks, as one call."""

    def __init__(self, chain: Chain, heads: Sequence[BoundHead]) -> None:
        self._chain, self._heads = chain, tuple(heads)

    def submit(self, pixels: Any, limit: Deadline) -> PendingScores:
        """Begin to score pixels (see :meth:`promptray.runtime.backends.Chain.submit`)."""
        return PendingScores(self._chain.submit(pixels, limit), self._heads, pixels.shape[0])

    def run(self, pixels: Any) -> list[HeadScores]:
        """Score pixels float32 (B, channels, height, width) with every head."""
        return self.submit(pixels, Deadline(None, None)).result()[0]


class Graphs:
    """Compile a bundle's graphs on one backend. The text graph is compiled when first needed.

    Parameters
    ----------
    bundle : BundleContent
        Every graph is hashed as it is read; the bytes hashed are the bytes compiled.
    backend : Backend
        Where they run.
    prompts_per_batch : int or None
        Fixed number of prompts of each head call; None for one call per row bucket.
    prepare : bool
        Prepare images on the backend's device: chains take a ``StoredImage``, too.

    Attributes
    ----------
    preparing : Preparing or None
    """

    def __init__(
        self,
        bundle: BundleContent,
        backend: Backend,
        *,
        prompts_per_batch: int | None,
        prepare: bool = False,
    ) -> None:
        self._bundle = bundle
        self._backend = backend
        self._prompts_per_batch = prompts_per_batch
        self.preparing = self._prepare() if prepare else None
        self._image = self._load("image").bind({})
        self._heads = {head.name: self._load("head", head.name) for head in bundle.manifest.heads}
        self._text: tuple[Head, TextEncoder, BoundGraph] | None = None

    def _load(self, role: str, head: str | None = None) -> Graph:
        engines, manifest = self._backend.engines, self._bundle.manifest
        if engines is None:
            facts = gated_graph(manifest, self._backend.name, role, head)
        else:
            facts = engine_graph(manifest, engines, role, head)
        return self._backend.load(partial(self._bundle.read, facts.file), facts)

    def _prepare(self) -> Preparing:
        from promptray.runtime.prepare_graph import PrepareFacts  # only who asks for it waits for its import

        manifest = self._bundle.manifest
        file = manifest.engines.prepare if manifest.engines else None
        if file is None:
            raise no_prepare(self._backend.name, "a bundle without a graph that does it")
        return self._backend.prepare_with(PrepareFacts.of(file, manifest.preprocessing))

    @property
    def gated(self) -> Gated | None:
        """What the graphs that run were gated with, where they are changed ones of the bundle."""
        if self._backend.engines is not None:
            return None
        return self._bundle.manifest.gated_for(consumers_here(self._backend.name))

    @property
    def engine_gate(self) -> EngineGate | None:
        """The gate of the set of engines that runs; None without engines, or while their gate is held."""
        engines = self._backend.engines
        return engines.gate if isinstance(engines, EngineSet) else None

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost (``score.closed``)."""
        self._backend.require_usable()

    def close(self) -> None:
        """Give back what the backend holds."""
        self._backend.close()

    def chain(self, heads: Iterable[BoundHead]) -> BoundChain:
        """Join the image side and heads, each with at least one prompt, to one call."""
        bound = tuple(heads)
        batches = [batch.graph for head in bound for batch in head.batches]
        return BoundChain(self._backend.chain(self._image, batches), bound)

    def features(self, pixels: NDArray[np.float32]) -> dict[str, Array]:
        """Run the image side on pixels float32 (B, C, H, W), on a backend that runs it by itself."""
        outputs = self._image.run({"pixels": pixels})
        require_leading(outputs, (len(pixels),), "image")
        require_finite(outputs, "image")
        return outputs

    def bind(self, head: Head, bank: PromptBank) -> BoundHead:
        """Make a bank resident in its head.

        A fixed set goes whole and unpadded: its findings may see each other, and padding would be seen too.

        Raises
        ------
        PromptError
            ``prompt.fixed-set`` for a part of such a set.
        """
        if head.set == "fixed":
            require_whole(self._bundle.manifest, head, bank.keys)
            batches = bank.batches()
        else:
            batches = bank.batches(prompts_per_batch=self._prompts_per_batch)
        return BoundHead.of(self._heads[head.name], batches)

    def bind_all(self, banks: Mapping[str, PromptBank]) -> dict[str, BoundHead]:
        """Make a bank resident in every head (see :meth:`bind`)."""
        return {head.name: self.bind(head, banks[head.name]) for head in self._bundle.manifest.heads}

    def encode(
        self,
        key: str,
        prompts: Sequence[str],
        negative_prompts: Sequence[str] = (),
        *,
        allow_empty: bool = False,
    ) -> BankEntry:
        """Encode one finding with the bundle's own text graph.

        Raises
        ------
        PromptError
            ``prompt.no-text-graph``; ``prompt.invalid`` for wordings the head cannot score; ``prompt.empty``
            when cleaning leaves nothing and `allow_empty` is false.
        """
        head, encoder, graph = self._text_side()
        require_wordings(head.bank.ensemble, head.relation, key, prompts, negative_prompts)
        finding = encoder.encode_finding(prompts, negative_prompts)
        return encode_finding(graph, head.bank, key, finding, allow_empty=allow_empty)

    def _text_side(self) -> tuple[Head, TextEncoder, BoundGraph]:
        if self._text is None:
            manifest = self._bundle.manifest
            rule, head = manifest.text, manifest.text_head
            if rule is None or head is None or manifest.graph("text") is None:
                raise PromptError(
                    "prompt.no-text-graph",
                    "this bundle carries no text graph, so it cannot encode a prompt",
                    artefact=f"{manifest.name} {self._bundle.short_hash}",
                    cure="where a bundle of the same model with its text graph is: `promptray prompts "
                    "THAT_BUNDLE export KEY -o prompts.safetensors`; then here: `promptray prompts BUNDLE "
                    "import prompts.safetensors`",
                )
            encoder = TextEncoder(rule, self._bundle.read(rule.tokenizer))
            self._text = (head, encoder, self._text_graph().bind({}))
        return self._text

    def _text_graph(self) -> Graph:
        """Compile the text graph: on the host always, where the bank was gated; prompts are rare."""
        if self._backend.engines is None:
            return self._load("text")
        facts = gated_graph(self._bundle.manifest, HOST, "text", None)
        host = load_backend(HOST, threads=self._backend.threads)
        return host.load(partial(self._bundle.read, facts.file), facts)


def encode_finding(
    graph: BoundGraph, rule: BankRule, key: str, finding: EncodedFinding, *, allow_empty: bool = False
) -> BankEntry:
    """Encode one finding: each wording alone and unpadded, so that nothing depends on what else is encoded.

    Raises
    ------
    PromptError
        ``prompt.empty`` when cleaning leaves nothing of a wording and `allow_empty` is false;
        ``prompt.invalid`` when wordings cancel each other, or leave the range that the bank is stored in.
    """
    if not allow_empty:
        require_text(key, finding)
    rows = [graph.run(prompt.arrays) for prompt in (*finding.prompts, *finding.negative_prompts)]
    for outputs in rows:
        require_finite(outputs, "text")
    count = len(finding.prompts)
    return BankEntry(
        key,
        tuple(prompt.wording for prompt in finding.prompts),
        rounded(combine(rule, key, rows[:count], rows[count:]), rule, key),
        negative_prompts=tuple(prompt.wording for prompt in finding.negative_prompts),
    )
