"""Builds the CUDA half of the installed jax-finufft from its source distribution and puts it beside the CPU half.

PyPI's wheels of jax-finufft hold the CPU half alone. This takes the matching source from PyPI, compiles what runs on
the GPU with the CUDA compiler that came with JAX, or that of the system (no FFTW, no network but for the source), and
copies the module into the installed package: six minutes on two cores. Then `python -m acqdesign.doctor` checks it.
`nox -s cuda` does it all.

    python tools/build_cuda_finufft.py [--arch 90]
"""

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def architecture() -> str:
    """The first GPU's compute capability as CMake names it, `90` say."""
    call = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        found = []
    if not found:
        sys.exit(
            "No NVIDIA GPU here (nvidia-smi is missing or finds none), so nothing was built. On a machine with one "
            "run this again; to build for another machine's GPU give its compute capability, as in --arch 90. "
            "Without the CUDA half everything runs on a GPU through --backend dft."
        )
    return found[0].replace(".", "")


def of_jax(pattern: str) -> str | None:
    """A file of the CUDA that came with JAX from PyPI, or None."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((str(path) for folder in folders for path in sorted(Path(folder).rglob(pattern))), None)


def compiler() -> str:
    """The CUDA compiler: CUDA_HOME's, the one that came with JAX, on the path, or where CUDA usually lies."""
    home = os.environ.get("CUDA_HOME")
    places = (
        f"{home}/bin/nvcc" if home else None,
        of_jax("bin/nvcc"),
        shutil.which("nvcc"),
        "/usr/local/cuda/bin/nvcc",
    )
    for place in places:
        if place and Path(place).exists():
            return place
    sys.exit(
        "No CUDA compiler (nvcc): pip install 'jax[cuda13]' brings one (Python 3.12 or newer); else install the CUDA "
        "toolkit of JAX's major version, or say where it is with CUDA_HOME."
    )


def link_names(folder: Path) -> Path:
    """A folder with the names that linkers look for, of the libraries that came with JAX: those it will load."""
    folder.mkdir()
    for name in ("cudart", "cufft"):
        library = of_jax(f"lib{name}.so.*")
        if library:
            (folder / f"lib{name}.so").symlink_to(library)
    return folder


def run(*call: str) -> None:
    """One step, shown."""
    print("+", " ".join(call), flush=True)
    subprocess.run(call, check=True)


def main() -> None:
    """Downloads, compiles, copies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", help="compute capability to build for, 90 say (default: that of the GPU here)")
    parser.add_argument("--look", action="store_true", help="only look whether a GPU is here")
    args = parser.parse_args()
    arch = args.arch or architecture()
    if args.look:
        return
    nvcc = compiler()
    # A build of one's own may carry a mark, as in 1.3.1+cuda; the source has none.
    version = importlib.metadata.version("jax-finufft").split("+")[0]
    package = importlib.util.find_spec("jax_finufft")
    assert package is not None
    assert package.origin is not None
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "jax-finufft"]
        run(*pip, "--dest", folder, f"jax-finufft=={version}")
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = next(path for path in Path(folder).iterdir() if path.is_dir())
        build = f"{folder}/build"
        settings = {
            "SDIST": str(source),
            "CMAKE_CUDA_COMPILER": nvcc,
            "CMAKE_CUDA_ARCHITECTURES": arch,
            "Python_EXECUTABLE": sys.executable,
        }
        if nvcc == of_jax("bin/nvcc"):
            links = link_names(Path(folder) / "links")
            settings |= {"CMAKE_LIBRARY_PATH": str(links), "CMAKE_MODULE_LINKER_FLAGS": f"-L{links}"}
        defined = [f"-D{name}={value}" for name, value in settings.items()]
        run("cmake", "-S", str(HERE / "cuda_finufft"), "-B", build, "-G", "Ninja", *defined)
        run("cmake", "--build", build)
        module = next(Path(build).glob("jax_finufft_gpu*.so"))
        target = Path(package.origin).parent / module.name
        shutil.copy2(module, target)
    # JAX loads the CUDA libraries that the module needs, whether or not there is a GPU.
    loads = "import jax; jax.devices(); from jax_finufft import lowering; assert lowering.jax_finufft_gpu"
    subprocess.run([sys.executable, "-c", loads], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    print(f"built for sm_{arch}, and loads: {target}")


if __name__ == "__main__":
    main()
