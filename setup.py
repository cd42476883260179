"""Package metadata. The three import packages live in the folders of the tools that use them."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "lyra_core/__init__.py").read_text(encoding="utf-8"), re.M).group(1)

SOURCES = {"lyra_core": "lyra_core", "lyra_tasks": "tasks/lyra_tasks", "lyra_worlds": "exts/lyra_worlds/lyra_worlds",
           "lyra_configs": "configs"}
"""Import name -> folder. A folder without __init__.py is not shipped."""

REQUIRES = [
    # Safe inside Isaac Sim 5.1 and 6.x: no pxr, no torch, and every range admits what Kit ships (tests/test_packaging.py).
    "numpy>=1.26",
    "scipy>=1.11",
    "opencv-python-headless>=4.8",
    "scikit-image>=0.22",
    "trimesh>=4.4",
    "fast-simplification>=0.1.9",
    "embreex>=2.17.7; platform_machine in 'x86_64 AMD64 arm64'",
    "warp-lang>=1.8",
    "gymnasium>=1.2",
    "pillow>=10.1",
    "imageio>=2.33",
    "imageio-ffmpeg>=0.5",
    "mapbox_earcut>=1.0",
    "threadpoolctl>=3.1",
    "tyro>=0.9.2,<0.9.18",  # later ones, and typeguard from 4.4.3 on, ask for a newer typing_extensions than Kit pins
    "typeguard>=4,<4.4.3",
    "rich>=13",
    "pyyaml>=6.0",
]

USD = "usd-core>=25.5"
EXTRAS = {
    "standalone": [USD],
    "newton": ["newton==1.8.0", "newton-usd-schemas>=0.6", USD],
    "mujoco": ["mujoco>=3.3"],
    "validate": ["usd-validation-nvidia>=1.10", USD],
    "lyra2": ["torch>=2.7", "diffusers>=0.35", "transformers>=4.51", "safetensors>=0.4", "accelerate>=1.10",
              "peft>=0.15"],
    "rl": ["torch>=2.7", "stable-baselines3>=2.7"],
    "exr": ["OpenEXR>=3.3"],
    "spz4": ["zstandard>=0.22"],
    "explore": ["viser>=1.0"],
    "cluster": ["ray[default]>=2.44"],
    "dev": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.12", "pyright>=1.1.400", "packaging>=23", "setuptools>=68", "wheel"],
}


def packages() -> list[str]:
    """Return every package below SOURCES that has an __init__.py."""
    found = []
    for name, folder in SOURCES.items():
        if (ROOT / folder / "__init__.py").is_file():
            found += [name, *(f"{name}.{sub}" for sub in find_packages(str(ROOT / folder)))]
    return found


setup(
    name="lyra-worlds",
    version=VERSION,
    description="One photo in, a walkable simulation-ready world and navigation environments out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=packages(),
    package_dir=SOURCES,
    package_data={"lyra_core": ["**/*.jpg", "**/*.safetensors", "**/NOTICE", "**/*.png", "**/*.json", "**/*.yaml", "**/*.html",
                                "**/*.css"],
                  "lyra_tasks": ["**/*.html", "**/*.js", "**/*.css", "**/*.json", "**/*.yaml"],
                  "lyra_worlds": ["**/*.json"], "lyra_configs": ["**/*.yaml"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["lyra-worlds=lyra_core.cli:main"]},
    classifiers=["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.12",
                 "Operating System :: OS Independent", "Topic :: Scientific/Engineering"],
)
