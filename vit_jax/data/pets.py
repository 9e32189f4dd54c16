"""Oxford-IIIT Pet (Parkhi et al., CVPR 2012; CC BY-SA 4.0): 37 breeds, 3,680 training and 3,669 test images.

Downloaded as its two official archives, because the builder of tensorflow-datasets needs TensorFlow.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices
from vit_jax.download import download_file
from vit_jax.errors import InputError
from vit_jax.notes import note

ADDRESS = "https://thor.robots.ox.ac.uk/~vgg/data/pets"
Digests = Mapping[str, str | None]
ARCHIVES: Digests = {
    "images": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations": "95a8c909bbe2e81eed6a22bccdf3f68f",
}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the regular files of a .tar.gz into `folder`, which appears only when all of them are there.

    Raises InputError for a damaged archive and for a member whose name leads outside the folder.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(f"{archive}: refused: its member {member.name!r} leads outside the folder")
                source = tar.extractfile(member) if member.isreg() else None
                if source is None:
                    continue  # folders are created with their files; links and devices are ignored
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except (tarfile.TarError, EOFError, shutil.Error) as error:
        raise InputError(f"{archive}: damaged archive ({error}); delete it and try again") from error
    except OSError as error:
        if isinstance(error, tarfile.ReadError) or error.errno is None:  # gzip's BadGzipFile carries no errno
            raise InputError(f"{archive}: damaged archive ({error}); delete it and try again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fetch(folder: str | os.PathLike, *, address: str = ADDRESS, md5: Digests = ARCHIVES) -> Path:
    """Download and unpack the two archives below `folder`, unless that is done; return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in md5.items():
        if (folder / name).is_dir():
            continue
        archive = folder / f"{name}.tar.gz"
        download_file(f"{address}/{name}.tar.gz", archive, md5=digest)
        note(f"unpacking {archive}")
        unpack(archive, folder / name)
        archive.unlink()
    return folder


def _read_list(folder: Path, name: str) -> list[str]:
    """Read the image names of a list in annotations/, whose lines are: image, class, species, breed."""
    path = folder / "annotations" / "annotations" / name
    if not path.is_file():
        raise InputError(f"{path}: missing; delete {folder} and try again")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]


def open_pets(folder: str | os.PathLike, *, address: str = ADDRESS, md5: Digests = ARCHIVES) -> Dataset:
    """Open Oxford-IIIT Pet with its official split, trainval for training and test for validation.

    Raises InputError when an archive cannot be downloaded or lacks an image that its lists name.
    """
    root = fetch(folder, address=address, md5=md5)
    train, test = _read_list(root, "trainval.txt"), _read_list(root, "test.txt")
    names = check_classes([_breed(n) for n in train], [_breed(n) for n in test], str(root))
    train_split, val_split = _open_split(root, train, names), _open_split(root, test, names)
    return Dataset("oxford_iiit_pet", names, train_split, val_split, root=str(root))


def _breed(image: str) -> str:
    return image.rpartition("_")[0]


def _open_split(root: Path, images: list[str], class_names: tuple[str, ...]) -> Split:
    files = [root / "images" / "images" / f"{image}.jpg" for image in images]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing}: listed but missing; delete {root} and try again")
    return Split.from_files(files, class_indices([_breed(image) for image in images], class_names))
