"""Run with the built wheel installed and the checkout elsewhere: is the package whole?"""

import sys
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import acqdesign
from acqdesign.scene import load_brain

repo = Path(sys.argv[1]).resolve()
package = Path(acqdesign.__file__).resolve().parent
assert repo not in package.parents, f"the checkout's package was imported, not the wheel's: {package}"

source = repo / "acqdesign"
tracked = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
missing = sorted(name for name in tracked if not (package / name).is_file())
assert not missing, f"not in the wheel: {missing}"

assert resources.files("acqdesign").joinpath("py.typed").is_file()
licences = [str(p) for p in metadata.files("acqdesign") or [] if "LICENSE" in p.name]
assert any(name.endswith("licenses/LICENSE") for name in licences), licences
assert any("LICENSE-MNI" in name for name in licences), licences

image = np.asarray(load_brain(shape=(16, 20, 16), contrast="T1w"))
assert image.shape == (16, 20, 16), image.shape
assert np.isfinite(image).all()
assert image.max() > 0
print(f"acqdesign {metadata.version('acqdesign')} at {package}: whole")
