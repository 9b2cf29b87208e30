"""Versions as files that other programs read: safetensors with a card, ONNX, torch.export."""
