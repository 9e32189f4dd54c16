"""What the tests of the explain program share besides fixtures."""

NAMES = ("cat", "big_dog", "cow")


def copy_pictures(source, folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
