"""Oxford-IIIT Pet (Parkhi et al., CVPR 2012; CC BY-SA 4.0): 37 breeds, 3,680 training and 3,669 test pictures.

Fetched as its two official archives, with no TensorFlow: tensorflow-datasets' own builder needs it.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices
from vit_jax.data.decode import open_rgb
from vit_jax.download import download_file
from vit_jax.errors import InputError

ADDRESS = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
Digests = Mapping[str, str | None]
ARCHIVES: Digests = {
    "images": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations": "95a8c909bbe2e81eed6a22bccdf3f68f",
}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz so that `folder` holds its regular files, whole or not at all.

    Raises InputError for a damaged archive and for a member whose name leads outside the folder.
    """
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(f"{archive}: refused: its member {member.name!r} leads outside the folder")
                source = tar.extractfile(member) if member.isreg() else None
                if source is None:
                    continue  # folders come with their files; links and devices are not wanted
                target = beside / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
        beside.chmod(0o755)
        beside.rename(folder)
    except (tarfile.TarError, EOFError, shutil.Error) as error:
        raise InputError(f"{archive}: damaged archive ({error}); delete it and try again") from error
    except OSError as error:
        if isinstance(error, tarfile.ReadError) or error.errno is None:  # gzip's BadGzipFile carries no errno
            raise InputError(f"{archive}: damaged archive ({error}); delete it and try again") from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def fetch(folder: str | os.PathLike, *, address: str = ADDRESS, md5: Digests = ARCHIVES) -> Path:
    """Fetch and unpack the two archives below `folder`, doing only what is not done yet; answers the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in md5.items():
        if (folder / name).is_dir():
            continue
        archive = folder / f"{name}.tar.gz"
        download_file(f"{address}/{name}.tar.gz", archive, md5=digest)
        print(f"unpacking {archive}", flush=True)
        unpack(archive, folder / name)
        archive.unlink()
    return folder


def _split_list(folder: Path, name: str) -> list[str]:
    """Image names of annotations/NAME.txt, whose lines are: image, class, species, breed."""
    path = folder / "annotations" / "annotations" / name
    if not path.is_file():
        raise InputError(f"{path}: missing; delete {folder} and try again")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]


def open_pets(folder: str | os.PathLike, *, address: str = ADDRESS, md5: Digests = ARCHIVES) -> Dataset:
    """Oxford-IIIT Pet with its official split, trainval for training and test for validation.

    Raises InputError when the archives can't be fetched or lack what their lists name.
    """
    root = fetch(folder, address=address, md5=md5)

    def split(images: list[str], classes: tuple[str, ...]) -> Split:
        files = [root / "images" / "images" / f"{image}.jpg" for image in images]
        absent = next((path for path in files if not path.is_file()), None)
        if absent is not None:
            raise InputError(f"{absent}: listed but missing; delete {root} and try again")
        labels = class_indices([image.rpartition("_")[0] for image in images], classes)
        return Split([str(path) for path in files], labels, lambda i: open_rgb(files[i]))

    train, test = _split_list(root, "trainval.txt"), _split_list(root, "test.txt")
    names = check_classes([n.rpartition("_")[0] for n in train], [n.rpartition("_")[0] for n in test], str(root))
    return Dataset("oxford_iiit_pet", names, split(train, names), split(test, names))
