"""Hands back the headers that matter."""


def init():
    pass


def run(body, request_headers):
    kept = {name: value for name, value in request_headers.items() if name.startswith(("X-Mine", "Content-"))}
    return {"body": body, "headers": kept}
