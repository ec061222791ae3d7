"""Web services: registered models behind HTTP, as processes of this machine."""
