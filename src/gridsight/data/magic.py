"""What a file is by its first bytes, where its name says something else."""

MAGIC: dict[str, tuple[tuple[int, bytes], tuple[str, ...]]] = {
    "PNG": ((0, b"\x89PNG\r\n"), (".png", ".apng")),
    "JPEG": ((0, b"\xff\xd8\xff"), (".jpg", ".jpeg", ".jpe", ".jfif")),
    "GIF": ((0, b"GIF8"), (".gif",)),
    "BMP": ((0, b"BM"), (".bmp", ".dib")),
    "WebP": ((8, b"WEBP"), (".webp",)),
    "TIFF": ((0, b"II*\0"), (".tif", ".tiff")),
    "TIFF (big-endian)": ((0, b"MM\0*"), (".tif", ".tiff")),
    "WAV": ((8, b"WAVE"), (".wav", ".wave")),
    "FLAC": ((0, b"fLaC"), (".flac",)),
    "Ogg": ((0, b"OggS"), (".ogg", ".oga", ".opus")),
    "NumPy": ((0, b"\x93NUMPY"), (".npy",)),
    "zip": ((0, b"PK\x03\x04"), (".zip", ".npz")),
}


def other_than_named(name: str, head: bytes) -> str | None:
    """The format of a file's first 16 bytes when its suffix is that of another; None when they agree or say nothing.

    >>> other_than_named("cat.jpg", b"\\x89PNG\\r\\n\\x1a\\n")
    'PNG'
    """
    for kind, ((start, magic), suffixes) in MAGIC.items():
        if head[start : start + len(magic)] == magic:
            return None if "." not in name or name.lower().endswith(suffixes) else kind
    return None
