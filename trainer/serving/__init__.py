"""Scoring over HTTP on this machine, by the contract of Azure ML's own inference server.

    trainer serve ──▶ supervisor ──fork──▶ worker: event loop ──▶ app ──▶ scorer
                        │ holds the listening socket                       network, Chainer network or score script
                        └ follows the registry: new workers first, then the old ones retire

The supervisor imports neither NumPy nor the HTTP server; the workers do, after they were forked.
"""

from trainer.serving.settings import MODEL_PORT, ServeSettings

__all__ = ["MODEL_PORT", "ServeSettings"]
