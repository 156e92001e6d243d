"""Run a bundle with ONNX Runtime alone: check it, score its golden pictures, compare with the stored answers.

Usage: python score_golden.py chest.bundle
Exit code 0: all values within the bundle's tolerance; 1: refused, the message says why.
Needs numpy and onnxruntime, not promptray. Section numbers are those of docs/bundle-format.md.
"""

import hashlib
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}
Tensors = dict[str, np.ndarray]


def open_bundle(root: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Section 1: the seal, then the set of files, then every hash; give the manifest and the content."""
    raw = (root / "bundle.json").read_bytes()
    if (root / "bundle.sha256").read_bytes() != f"{hashlib.sha256(raw).hexdigest()}  bundle.json\n".encode():
        sys.exit("bundle.json does not match its seal bundle.sha256")
    manifest = json.loads(raw)
    if (manifest["format"], manifest["format_version"]) != ("promptray-bundle", 4):
        sys.exit(f"not a bundle of format version 4, but of {manifest['format_version']}")
    if any(path.is_symlink() for path in root.rglob("*")):
        sys.exit("the bundle holds a link")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    expected = {"bundle.json", "bundle.sha256", *manifest["files"]}
    if found != expected:
        sys.exit(f"missing: {sorted(expected - found)}; not listed: {sorted(found - expected)}")
    files = {name: (root / name).read_bytes() for name in manifest["files"]}
    for name, facts in manifest["files"].items():
        if hashlib.sha256(files[name]).hexdigest() != facts["sha256"]:
            sys.exit(f"{name} was changed: expected sha256 {facts['sha256']}")
    return manifest, files


def safetensors(data: bytes) -> tuple[Tensors, dict[str, str]]:
    """A length (8 bytes, little endian), a JSON header of that length, the tensors' bytes."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, facts in header.items():
        begin, end = (start + offset for offset in facts["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], DTYPES[facts["dtype"]]).reshape(facts["shape"])
    return tensors, metadata


def unpack_bank(rule: dict[str, Any], data: bytes) -> Tensors:
    """Section 5: a head's inputs for all its prompts, ragged tensors unpacked and padded to one bucket."""
    packed, metadata = safetensors(data)
    if metadata["bank_id"] != rule["id"]:
        sys.exit(f"a foreign prompt bank: expected {rule['id']}, found {metadata['bank_id']}")
    offsets = packed["offsets"]
    longest = int(np.diff(offsets).max(initial=0))
    rows = next((bucket for bucket in rule["row_buckets"] if bucket >= longest), longest)
    bank = {}
    for tensor in rule["tensors"]:
        name, dims = tensor["name"], tensor["dims"]
        if "rows" not in dims:
            bank[name] = packed[name]
            continue
        shape = [{"prompts": len(offsets) - 1, "rows": rows}.get(dim, dim) for dim in dims]
        padding = rule["row_bias_padding"] if name == rule["row_bias"] else 0
        bank[name] = np.full(shape, padding, packed[name].dtype)
        rows_first = np.moveaxis(bank[name], dims.index("rows"), 1)  # a view: (prompts, rows, ...)
        for prompt, (begin, end) in enumerate(pairwise(offsets)):
            rows_first[prompt, : end - begin] = packed[name][begin:end]
    return bank


def normalise(rule: dict[str, Any], picture: np.ndarray) -> np.ndarray:
    """Section 3.4, in float32: one 8-bit picture to `pixels` (1, channels, height, width)."""
    mean = np.array(rule["normalise"]["mean"], np.float32)[:, None, None]
    std = np.array(rule["normalise"]["std"], np.float32)[:, None, None]
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return ((planes.astype(np.float32) / np.float32(255) - mean) / std)[None]


def run(session: ort.InferenceSession, tensors: Tensors) -> Tensors:
    """Section 4: tensors are found by name, never by place."""
    names = [output.name for output in session.get_outputs()]
    wanted = {name.name: tensors[name.name] for name in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def main(root: Path) -> int:
    """Compare every golden picture's logits and maps with the stored ones, head by head."""
    manifest, files = open_bundle(root)
    consumers = [consumer for graph in manifest["graphs"] for consumer in graph["consumers"]]
    if any("@" in each for each in consumers) or any(
        head["bank"].get("stored") == "float16" for head in manifest["heads"]
    ):
        sys.exit("changed graphs or banks (section 7.2), whose gated answers this example does not read")
    sessions = {  # reversed: the first graph of a role, or of a head, is its reference
        (graph["role"], graph.get("head")): ort.InferenceSession(
            files[graph["file"]], providers=["CPUExecutionProvider"]
        )
        for graph in reversed(manifest["graphs"])
        if graph["role"] != "text"
    }
    golden, _ = safetensors(files[manifest["golden"]["tensors"]])
    pixels = [normalise(manifest["preprocessing"], picture) for picture in golden["pictures"]]
    features = [run(sessions["image", None], {"pixels": each}) for each in pixels]
    print(f"{manifest['name']}: {len(pixels)} pictures, {len(manifest['findings'])} findings")
    passed = True
    for head in manifest["heads"]:
        allowed = {"logits": head["score_tolerance"]}
        if head.get("map"):
            allowed["maps"] = head["map"]["tolerance"]
        bank = unpack_bank(head["bank"], files[head["bank"]["file"]])
        answers = [run(sessions["head", head["name"]], {**each, **bank}) for each in features]
        for name, tolerance in allowed.items():
            found = np.concatenate([each[name] for each in answers])
            error = float(np.abs(found - golden[f"{name}.{head['name']}"]).max(initial=0.0))
            within = error <= tolerance  # False for NaN
            passed &= within
            verdict = "" if within else "FAILED"
            print(f"  {head['name']}: {name} off by {error:.2g}, allowed {tolerance:.2g}", verdict)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
