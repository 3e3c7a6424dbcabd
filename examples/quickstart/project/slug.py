"""Titles to parts of a URL."""


def slug(title: str) -> str:
    """`Hello, World!` becomes `hello-world`: small letters and digits, one hyphen between words."""
    words = "".join(c if c.isalnum() else " " for c in title).split(" ")
    return "-".join(words).lower()
