"""Networks in .onnx files: their options, and ONNX Runtime's session of one."""

from pathlib import Path
from typing import Any, Literal

from dali_bgaug.errors import UserError
from dali_bgaug.files import sha256
from tools.offline.detectors.base import DetectorOptions


class OnnxOptions(DetectorOptions):
    """Options of a detector that is a network in a file."""

    weights: Path
    """The network, an .onnx file."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """Where ONNX Runtime computes; CUDA needs the package onnxruntime-gpu."""

    @property
    def on_gpu(self) -> bool:
        """With CUDA."""
        return self.provider == "cuda"

    def record(self) -> dict[str, Any]:
        """The options, and the weights' hash."""
        return super().record() | {"weights_sha256": sha256(self.weights)}


def open_session(options: OnnxOptions, file: str) -> Any:
    """ONNX Runtime's session of `weights`, in one thread. file: what they should be, for errors.

    Raises:
        UserError: no such file, none of ONNX, or no ONNX Runtime for it.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(
            f"--detector {options.name} needs ONNX Runtime: pip install '.[saliency]' (or onnxruntime-gpu "
            "for provider=cuda)"
        ) from None
    if not options.weights.is_file():
        raise UserError(f"weights={options.weights}: no such file; give {file}")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[options.provider]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"provider={options.provider}: this ONNX Runtime has only "
            f"{', '.join(onnxruntime.get_available_providers())}; install onnxruntime-gpu, or take "
            "provider=cpu"
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1  # see Detector
    settings.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(options.weights), settings, providers=[provider])
    except Exception as error:  # ONNX Runtime has an exception of its own for every kind of bad file
        reason = str(error).splitlines()[0]
        raise UserError(
            f"weights={options.weights}: ONNX Runtime cannot load it ({reason}); give {file}, whole"
        ) from error
