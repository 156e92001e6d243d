"""A bundle's graphs, compiled and bound: features of an image, scores against banks, rows of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import (
    HOST,
    Backend,
    BoundGraph,
    Graph,
    Preparing,
    load_backend,
    no_prepare,
    require_leading,
)
from promptray.runtime.backends.finite import require_finite
from promptray.runtime.bank_file import unpack
from promptray.runtime.bank_precision import rounded
from promptray.runtime.bound_heads import BoundChain, BoundHead
from promptray.runtime.bundle.gated import Gated
from promptray.runtime.bundle.manifest import BankRule, Head, Manifest
from promptray.runtime.engines.facts import EngineSet
from promptray.runtime.ensemble import combine
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.fixed_set import require_whole
from promptray.runtime.graph_choice import engine_graph, gated_graph
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.prompts import BankEntry, PromptBank
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
            raise no_prepare(self._backend.name, "a bundle without a graph that does it", has_graph=False)
        return self._backend.prepare_with(PrepareFacts.of(file, manifest.preprocessing))

    @property
    def gated(self) -> Gated | None:
        """What the graphs that run were gated with, where they are changed ones of the bundle."""
        if self._backend.engines is not None:
            return None
        return self._bundle.manifest.gated_for(consumers_here(self._backend.name))

    @property
    def engine_set(self) -> EngineSet | None:
        """The gated set of engines that runs; None without engines, or while their gate is held."""
        engines = self._backend.engines
        return engines if isinstance(engines, EngineSet) else None

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
        if self._backend.name == HOST:
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
