"""Models in formats of other programs: ONNX, checked in onnxruntime, and safetensors, checked bit for bit."""
