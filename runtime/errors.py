"""Errors with stable codes: what failed, on which artefact, expected, found, and the cure.

Every refusal of PromptRay is a :class:`PromptRayError`. Its ``code`` is stable across versions and is
listed in :data:`CODES`; programs branch on the code, people read the message. Messages never hold
patient data: no tag values beyond those the result schema names, no pixel data, no free text of a study.
"""

from __future__ import annotations

#: Every stable code with its meaning. ``docs/errors.md`` is generated from this table.
CODES: dict[str, str] = {
    # bundle and site directory
    "bundle.not-found": "The path is not a bundle directory.",
    "bundle.format": "A manifest is not valid JSON or breaks the schema.",
    "bundle.version": "The format version is not one this software reads.",
    "bundle.seal": "bundle.json does not match its seal.",
    "bundle.hash": "A file does not match the hash recorded for it.",
    "bundle.missing-file": "A listed file is missing.",
    "bundle.unlisted-file": "The directory holds a file the manifest does not list.",
    "bundle.unsafe-path": "A file name leaves the bundle, or is a link.",
    "bundle.foreign-bank": "A prompt bank was made with other weights, tokenizer, rule or layout.",
    "bundle.exists": "The output already exists.",
    "bundle.unwritable": "The bundle cannot be written where it was asked for.",
    "bundle.golden": "The golden self-test gave other numbers than those stored.",
    "site.corrupt": "The site directory does not match its own hashes.",
    "site.not-found": "The site directory given does not exist.",
    "site.busy": "Another process holds the site directory.",
    "site.changed": "Another process changed the site directory since it was opened.",
    "site.unwritable": "The site directory cannot be written.",
    # images
    "image.not-found": "The file does not exist or cannot be read.",
    "image.format": "The input is none of DICOM, PNG, JPEG or a NumPy array.",
    "image.broken": "The file is truncated or damaged.",
    "image.too-large": "The image exceeds the size limit.",
    "image.too-small": "The image is smaller than the model's least size.",
    "image.constant": "The image holds a single value.",
    "image.array": "The array has a dtype or shape that is not a grey image.",
    "image.colour": "The image is in colour and the model reads grey.",
    "image.depth": "The model's own reader defines no picture of so many bits a sample.",
    "image.modality-undeclared": "The input carries no modality and the caller declared none.",
    "image.modality": "The modality contradicts what the model was made for.",
    "image.contradiction": "A tag contradicts what the model was made for.",
    "image.tag-missing": "A tag needed in strict mode is absent.",
    "dicom.no-pixels": "The DICOM object holds no image.",
    "dicom.transfer-syntax": "The transfer syntax cannot be decoded here.",
    "dicom.tags": "Tags needed to read the pixels are absent or impossible.",
    "dicom.frame": "A frame must be chosen, or the chosen one does not exist.",
    # prompts
    "prompt.unknown": "No finding has this key.",
    "prompt.ambiguous": "Findings of several heads answer to this name; it takes the head, too.",
    "prompt.unknown-pack": "No prompt pack has this name.",
    "prompt.endpoint": "The endpoint that was asked to align prompts is not allowed or failed.",
    "prompt.form": "Nothing in the form of a prompt can be made of a wording.",
    "prompt.exists": "A finding with this key exists already.",
    "prompt.empty": "No word of the prompt is left after the model's text cleaning.",
    "prompt.invalid": "The prompt or key is not usable text.",
    "prompt.no-text-graph": "The bundle carries no text graph, so it cannot encode prompts.",
    "prompt.fixed-set": "The findings of this head form one unit and cannot be edited.",
    # scoring
    "backend.unavailable": "The backend is not installed or not supported by this bundle.",
    "backend.mixed-wheels": "Several onnxruntime wheels are installed over each other.",
    "backend.failed": "The backend failed while loading or running a graph.",
    "backend.out-of-memory": "The GPU has no memory left; the scorer can still be used.",
    "backend.device-lost": "The GPU failed; nothing can be scored on it in this process any more.",
    "backend.capture": "The engines cannot be recorded as a CUDA graph.",
    "backend.shape": "The engines were not built for so many images, prompts or rows.",
    # decoding at a lower resolution
    "decode.ungated": "Nobody has shown here that scores stay the same at a lower resolution.",
    "decode.stale": "A lower resolution was gated with another decoder, backend or precision.",
    # engines
    "engine.missing": "There is no gated engine for this device.",
    "engine.stale": "The engines are of another library version, or of other graphs or settings.",
    "engine.foreign": "The engines were built for another GPU.",
    "engine.gate": "Engines that passed gates on images would be replaced by some that did not.",
    "engine.no-prepare": "Nothing here prepares images on the device.",
    "engine.source": "The bundle holds no graph that an engine can be made of for this library.",
    # scoring
    "score.not-finite": "The model produced NaN or infinity.",
    "score.deadline": "The deadline passed before the score was ready.",
    "score.cancelled": "The caller cancelled the call.",
    "score.fault": "Something unforeseen failed while an image was being scored; it has no score.",
    "score.input": "Network input is not of the shape, type or device that can be scored.",
    "score.foreign-input": "The image was prepared for another bundle.",
    "score.closed": "The scorer is closed.",
    "score.map-unavailable": "The head has no explanation map.",
    "score.head": "The bundle has no such head, or several, and none was chosen.",
    "score.region": "The region asked about is not on the picture, or the network did not see it.",
    # examinations
    "exam.no-rule": "The bundle stores no rule for examinations, so images are not pooled.",
    "exam.view": "A declared view is none, or contradicts the tags.",
    "exam.mixed": "Images do not belong to one study, or one image was given twice.",
    "exam.incomplete": "Views are missing without which there is no score of the examination.",
    "exam.findings": "The findings cannot be pooled: one alternative alone, or changed on the way.",
    # archives
    "batch.images": "An image of a batch is given twice, or there is none, or their list cannot be read.",
    "batch.state": "What is in the folder of results is damaged, of another batch, or in use.",
    "batch.worker": "The workers of a batch cannot go on; what they finished is kept.",
    "batch.worker-died": "Every process that scored this image died; it has no score.",
    # reports beside scores
    "report.invalid": "A report cannot be read, or says nothing that the lexicon knows.",
    "report.reference": "The file of reference scores cannot be used.",
    # making a bundle
    "recipe.invalid": "The recipe breaks the schema.",
    "checkpoint.not-found": "The checkpoint file does not exist.",
    "checkpoint.format": "The file is not a checkpoint this loader reads.",
    "checkpoint.layout": "Weights are missing, unexpected or of the wrong shape.",
    "checkpoint.config": "The checkpoint's own configuration contradicts the family, or cannot be read.",
    "text-model.invalid": "The text model folder is incomplete or does not fit the checkpoint.",
    "export.failed": "A graph could not be exported.",
    "gate.failed": "A graph disagrees with the original by more than its gate allows.",
    "gate.inconclusive": "There is too little data to tell whether a changed model agrees with its original.",
    "gate.images": "The images that a changed model is to be held against its original on cannot be used.",
    "quantise.graph": "A graph cannot be quantised, or ONNX Runtime refuses what became of it.",
    "quantise.calibration": "The inputs that ranges are taken from are absent, or not what the graph takes.",
    "quantise.bank": "A prompt bank holds numbers that the type it is to be stored in cannot.",
    "quantise.keep": "A scheme keeps a layer high that the graph does not have.",
    "quantise.search": "No mix of quantised layers is inside all bounds on the images of the search.",
    "engine.unavailable": "The TensorRT that was asked for is not installed here, or cannot build here.",
    "engine.build-failed": "TensorRT refuses a graph, or failed to build its engine.",
    "engine.target": "An engine was asked for a GPU that the builder cannot build for.",
    "engine.cancelled": "The build of an engine was cancelled; nothing of it is left.",
    "repack.nothing": "A site changed nothing that a new bundle could hold, or would leave no finding.",
    "repack.ungated": "A bundle of changed graphs was gated with its own findings: none may come or go.",
    "family.unknown": "No family of this name.",
    # labels, scores, reports
    "table.not-found": "A table, list or folder of images is not there or cannot be read.",
    "table.format": "A CSV breaks its rules: encoding, separator, columns, a value, or a row written twice.",
    "table.image": "A table names an image that is not there, or more than one answers to its name.",
    "table.finding": "A table and the findings that are scored do not fit together.",
    "table.disjoint": "Two sides that are to be compared have no image or no finding in common.",
    # adapting to a site
    "adapt.recipe": "The recipe cannot be adapted as was asked.",
    "adapt.split": "Images that belong together are in two parts, or one picture has two labels.",
    "adapt.too-few": "A class has too few images in a part.",
    "adapt.images": "Labelled images are not there or cannot be read.",
    "adapt.state": "What an earlier run left in the output folder is damaged, of another run, or in use.",
    "adapt.diverged": "The loss of a training is no longer a finite number.",
    "output.exists": "A report would be written over another one.",
    "output.unwritable": "A report cannot be written where it was asked for.",
    "output.in-bundle": "Something would be written into a bundle, which is never changed.",
    # acceptance, and measuring speed
    "accept.reference": "The reference is not the fp32 original of the bundle.",
    "bench.images": "No image can be scored, so nothing can be measured.",
    "bench.budget": "There was no time for enough queries to state any percentile.",
    "bench.start": "A new process could not score what this one scored.",
    "bench.report": "An older report of a bench cannot be read.",
    # distillation
    "distil.settings": "A setting of the distillation is unknown, out of range or without effect.",
    "distil.student": "The student's architecture is unknown, or cannot take the place of the model's tower.",
    "distil.images": "Images to learn from are too few, or what a loss needs of them is absent.",
    "distil.wordings": "Wordings to learn from are too few, or their file cannot be read.",
    "distil.state": "What an earlier distillation left in the folder is damaged, of another run, or in use.",
    "distil.diverged": "The loss of a distillation is no longer a finite number.",
    "distil.simulate": "The quantisation of the recipe cannot be simulated while a student learns.",
    "distil.checkpoint": "A student's checkpoint is damaged, or was made for another model.",
    # probabilities and thresholds of a site
    "calibration.too-few": "Too few patients with or without a finding to calibrate it or set a threshold.",
    "calibration.alternatives": "Findings of which one is true cannot be calibrated one by one.",
    "calibration.unfit": "The scores of a finding do not rank its labels: they give no probability.",
    "extra.missing": "An optional dependency is not installed.",
    # the command line
    "command.usage": "The command was not called as its help says (exit code 2).",
    "command.system": "The operating system refused: a full disk, a missing right, a name too long.",
    "command.interrupted": "The command was interrupted (exit code 130).",
    "internal": "An unforeseen fault of this software (exit code 3). Please report it.",
}


class PromptRayError(Exception):
    """A refusal: the input, artefact or machine was not fit to give a right answer.

    Parameters
    ----------
    code : str
        One of :data:`CODES`.
    message : str
        What failed, in one sentence.
    artefact : str, optional
        The file or object concerned, with a short hash where there is one.
    expected, found : str, optional
        What was expected and what was there instead.
    cure : str, optional
        The command or change that mends it.

    Examples
    --------
    >>> raise PromptRayError("bundle.hash", "file changed", artefact="prompts.safetensors",
    ...                      expected="sha256 12ab…", found="sha256 34cd…", cure="copy the bundle again")
    Traceback (most recent call last):
    ...
    runtime.errors.PromptRayError: ...
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        artefact: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        cure: str | None = None,
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unregistered error code {code!r}")
        self.code = code
        self.message = message
        self.artefact = artefact
        self.expected = expected
        self.found = found
        self.cure = cure
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"[{self.code}] {self.message}"
        if self.artefact:
            text += f" ({self.artefact})"
        if self.expected:
            text += f"; expected {self.expected}"
        if self.found:
            text += f"; found {self.found}"
        if self.cure:
            text += f". Cure: {self.cure}"
        return text

    def to_json(self) -> dict[str, str | None]:
        """Return the error as the mapping the command line prints under ``"error"``."""
        return {
            "code": self.code,
            "message": self.message,
            "artefact": self.artefact,
            "expected": self.expected,
            "found": self.found,
            "cure": self.cure,
        }

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (worker pools), so they pickle with their fields, not their text.
        return _rebuild, (type(self), self.to_json())


def _rebuild(cls: type[PromptRayError], fields: dict[str, str]) -> PromptRayError:
    fields = dict(fields)
    return cls(fields.pop("code"), fields.pop("message"), **fields)


class BundleError(PromptRayError):
    """The bundle or its site directory was refused."""


class ImageError(PromptRayError):
    """An image was refused at the door; it gets no score."""


class PromptError(PromptRayError):
    """A prompt or finding was refused."""


class ScoringError(PromptRayError):
    """A backend or the scoring step failed; no score was given."""


class BuildError(PromptRayError):
    """A recipe, checkpoint, export or gate was refused."""
