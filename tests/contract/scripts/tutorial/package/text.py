from .words import TEXT

__all__ = ["TEXT"]
