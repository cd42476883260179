"""The demo picture: a furnished living room, rendered from analytic solids.

``python -m lyra_core.scenes.demo OUT.jpg`` writes it with the focal length in its EXIF data. Licence: Apache-2.0, as the code.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.io.files import write_bytes
from lyra_core.scenes import furniture as fu
from lyra_core.scenes import shell
from lyra_core.scenes.render import Effects, render
from lyra_core.scenes.scene import Material, Scene, SceneBuilder, Sky, place
from lyra_core.types import Camera, Label

DEMO_PHOTO = Path(__file__).parent / "data" / "demo_room.jpg"
WIDTH, HEIGHT = 1280, 853
FOCAL_35MM = 24
"""Focal length, 35 mm equivalent of a 36 mm wide picture [mm]."""
WALL_HEIGHT = 2.6


def demo_camera(*, width: int = WIDTH, height: int = HEIGHT) -> tuple[Camera, np.ndarray]:
    """Return the demo picture's camera and T_world_camera (4, 4): 1.5 m above the floor, looking 9 degrees down."""
    camera = Camera.from_focal(FOCAL_35MM / 36 * WIDTH, WIDTH, HEIGHT).resized(width, height)
    return camera, from_yaw_pitch(np.array([0.0, 0.0, 1.5]), np.radians(-1.5), np.radians(-9.0))


def demo_scene() -> Scene:
    """Return the living room: x from -0.9 to 5.9 m, y from -2.5 to 2.4 m."""
    rng, b = np.random.default_rng(20), SceneBuilder()
    window, door = shell.Opening(1.0, 3.1, 0.75, 2.3), shell.Opening(4.5, 5.35, 0.0, 2.03)
    warm = Material("plaster", (0.74, 0.75, 0.68), (0.66, 0.67, 0.6), scale=1.3, space="world")
    frames = shell.add_room(
        b, (-0.9, -2.5), (5.9, 2.4), WALL_HEIGHT, openings={"left": (window,), "right": (door,)}, walls={"front": warm}
    )
    shell.add_window(b, frames["left"], window, panes=3, daylight=(5.2, 5.6, 6.2))
    shell.add_door(b, frames["right"], door)
    _add_front(b, frames["front"], rng)
    _add_sides(b, frames, rng)
    fu.add_rug(b, place(4.05, 0.0), (1.7, 2.4), ((0.6, 0.36, 0.3), (0.87, 0.8, 0.68)), scale=0.34)
    table = place(4.2, 0.0, np.pi / 2)
    fu.add_table(b, table, (1.15, 0.62, 0.42), fu.WALNUT, leg=0.045)
    b.box(table, (-0.25, 0.05, 0.435), (0.3, 0.21, 0.025), fu.BOOKS[1])
    b.box(table, (-0.24, 0.04, 0.46), (0.24, 0.17, 0.022), fu.BOOKS[2])
    b.cone(table, (0.25, -0.05, 0.42), (0.06, 0.13), 0.08, Material("plain", (0.32, 0.5, 0.52), gloss=0.06))
    fu.add_pendant(b, place(3.3, 0.0), ceiling=WALL_HEIGHT, drop=0.5, strength=1.4)
    sky = Sky(strength=1.7, lights=False, trees=0.15, ground=(0.2, 0.27, 0.13))
    return b.build(sky=sky, ambient=(0.28, 0.265, 0.245), walkable=(-0.5, -1.5, 2.0, 1.5))


def _add_front(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Furnish the wall opposite the camera; its frame's x runs from the right corner to the left."""
    sofa = T @ place(2.5, 0.03)
    fu.add_sofa(
        b, sofa, width=2.25, seats=3, colour=(0.36, 0.46, 0.5), pillows=((-0.72, (0.86, 0.62, 0.26)), (0.7, (0.9, 0.86, 0.78)))
    )
    muted = (((0.28, 0.42, 0.46), (0.78, 0.68, 0.5)), ((0.5, 0.36, 0.3), (0.86, 0.74, 0.56)), ((0.3, 0.4, 0.32), (0.7, 0.72, 0.56)))
    for x, size, colours in zip((1.72, 2.5, 3.28), ((0.52, 0.7), (0.7, 0.7), (0.52, 0.7)), muted, strict=True):
        fu.add_picture(b, T, (x, 1.62), size, colours)
    fu.add_floor_lamp(b, T @ place(4.05, 0.4), strength=2.6)
    fu.add_plant(b, T @ place(0.95, 0.42), rng, height=1.6, leaves=70)
    fu.add_plant(b, T @ place(4.6, 0.3), rng, height=0.9, leaves=40, pot=(0.72, 0.42, 0.3))


def _add_sides(b: SceneBuilder, frames: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Furnish the window wall (x runs towards the camera) and the wall with the door (x runs away from it)."""
    left, right = frames["left"], frames["right"]
    b.box(left, (2.05, 0.1, 2.42), (3.3, 0.03, 0.03), fu.BRASS, rounding=0.014)
    fu.add_curtain(b, left @ place(0.74, 0.05), width=0.6, height=2.38, colour=(0.88, 0.84, 0.76))
    fu.add_curtain(b, left @ place(3.36, 0.05), width=0.6, height=2.38, colour=(0.88, 0.84, 0.76))
    b.box(left, (2.05, 0.1, 0.4), (1.5, 0.08, 0.5), fu.WHITE, rounding=0.02, label=Label.OBSTACLE)
    b.box(left, (2.05, 0.1, 0.1), (1.2, 0.05, 0.2), fu.WHITE, label=Label.OBSTACLE)
    fu.add_armchair(b, place(3.75, 2.1, np.pi + 0.35), colour=(0.74, 0.53, 0.36))
    fu.add_bookshelf(b, right @ place(6.1, 0.015), rng, width=1.1, height=2.05, material=fu.OAK)


def render_demo(*, width: int = WIDTH, height: int = HEIGHT, samples: int = 4, effects: Effects | None = None) -> np.ndarray:
    """Return the demo picture (height, width, 3) uint8."""
    camera, T_world_camera = demo_camera(width=width, height=height)
    effects = effects or Effects(light_samples=2, bounce_samples=6, exposure=0.88, noise=1.2)
    return render(demo_scene(), camera, T_world_camera, samples=samples, effects=effects).rgb


def jpeg_bytes(rgb: np.ndarray, *, quality: int = 88) -> bytes:
    """Encode a demo picture (H, W, 3) uint8 with EXIF: focal length, licence, software."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0131], exif[0x8298] = "lyra-worlds: python -m lyra_core.scenes.demo", "Apache-2.0, lyra-worlds contributors"
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0xA405] = FOCAL_35MM
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, exif=exif, optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Render the demo picture to a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    rgb = render_demo(width=arguments.width, height=round(arguments.width * HEIGHT / WIDTH), samples=arguments.samples)
    write_bytes(arguments.out, jpeg_bytes(rgb))


if __name__ == "__main__":
    main()
