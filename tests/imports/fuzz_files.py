"""Write damaged and hostile mesh files: whatever they say, a reader must give a mesh or one InputError."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CUBE_V = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1.0)])
CUBE_F = np.array([[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4],
                   [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5]])


def ply_bytes(vertices: np.ndarray, faces: np.ndarray, *, header: tuple[int, int] | None = None) -> bytes:
    """Return a binary PLY; header = other counts than the true ones."""
    count = header or (len(vertices), len(faces))
    text = (f"ply\nformat binary_little_endian 1.0\nelement vertex {count[0]}\n"
            "property float x\nproperty float y\nproperty float z\n"
            f"element face {count[1]}\nproperty list uchar int vertex_indices\nend_header\n")
    rows = np.zeros(len(faces), [("n", "u1"), ("i", "<i4", 3)])
    rows["n"], rows["i"] = 3, faces
    return text.encode() + vertices.astype("<f4").tobytes() + rows.tobytes()


def stl_bytes(vertices: np.ndarray, faces: np.ndarray, *, count: int | None = None) -> bytes:
    """Return a binary STL; count = another number of triangles than the true one."""
    rows = np.zeros(len(faces), [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    rows["v"] = vertices[faces % len(vertices)]
    return b"\0" * 80 + struct.pack("<I", len(faces) if count is None else count) + rows.tobytes()


def obj_text(vertices: np.ndarray, faces: np.ndarray, head: str = "") -> str:
    """Return an OBJ."""
    rows = [f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in faces]
    return head + "".join([*(f"v {x} {y} {z}\n" for x, y, z in vertices), *rows])


def off_text(vertices: np.ndarray, faces: np.ndarray) -> str:
    """Return an OFF."""
    return (f"OFF\n{len(vertices)} {len(faces)} 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in vertices)
            + "".join(f"3 {a} {b} {c}\n" for a, b, c in faces))


def gltf_tree(vertices: np.ndarray, faces: np.ndarray) -> dict[str, Any]:
    """Return a glTF with its buffer as a data URI."""
    data = vertices.astype("<f4").tobytes() + faces.astype("<u4").tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    split = 12 * len(vertices)
    return {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
            "buffers": [{"byteLength": len(data), "uri": uri}],
            "bufferViews": [{"buffer": 0, "byteLength": split},
                            {"buffer": 0, "byteOffset": split, "byteLength": len(data) - split}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(vertices), "type": "VEC3"},
                          {"bufferView": 1, "componentType": 5125, "count": faces.size, "type": "SCALAR"}]}


def glb_bytes(tree: dict[str, Any], binary: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a GLB; length = another total than the true one."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) if length is None else length) + chunks


def usda_text(vertices: np.ndarray, faces: np.ndarray, *, head: str = "metersPerUnit = 1\n    upAxis = \"Z\"", extra: str = "",
              tail: str = "") -> str:
    """Return a stage with one mesh."""
    points = ", ".join(f"({x}, {y}, {z})" for x, y, z in vertices)
    return f"""#usda 1.0
(
    {head}
)
def Mesh "m"
{{
    point3f[] points = [{points}]
    int[] faceVertexCounts = [{', '.join(['3'] * len(faces))}]
    int[] faceVertexIndices = [{', '.join(str(i) for i in faces.reshape(-1))}]
    uniform token subdivisionScheme = "none"
    {extra}
}}
{tail}
"""


def zip_bytes(members: list[tuple[str, bytes]], *, compressed: bool = False) -> bytes:
    """Return a zip; names are taken as they are."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return out.getvalue()


def _geometry() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield broken geometry that any format can hold."""
    nan = CUBE_V.copy()
    nan[3] = np.nan
    far = CUBE_V.copy()
    far[0, 0] = np.inf
    yield "whole", CUBE_V, CUBE_F
    yield "nan", nan, CUBE_F
    yield "all_nan", np.full_like(CUBE_V, np.nan), CUBE_F
    yield "infinite", far, CUBE_F
    yield "zero_area", CUBE_V, np.concatenate([CUBE_F, [[0, 0, 1], [2, 2, 2]]])
    yield "duplicate", CUBE_V, np.concatenate([CUBE_F, CUBE_F, CUBE_F[:, ::-1]])
    yield "open_inside_out", CUBE_V, CUBE_F[:7, ::-1]
    yield "million_times", 1e6 * CUBE_V, CUBE_F
    yield "huge", 1e37 * CUBE_V, CUBE_F
    yield "index_out_of_range", CUBE_V, np.concatenate([CUBE_F, [[0, 1, 800]]])
    yield "no_faces", CUBE_V, CUBE_F[:0]


def _garbage() -> bytes:
    return np.random.default_rng(5).integers(0, 256, 3000, dtype=np.uint8).tobytes()


def plain_files() -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of all files that OpenUSD does not read."""
    whole: dict[str, bytes] = {}
    for name, v, f in _geometry():
        files = {"ply": ply_bytes(v, f), "stl": stl_bytes(v, f), "obj": obj_text(v, f).encode(), "off": off_text(v, f).encode(),
                 "gltf": json.dumps(gltf_tree(v, f)).encode(), "glb": glb_bytes(gltf_tree(v, f))}
        if name == "whole":
            whole = files
        yield from ((f"{name}.{suffix}", data) for suffix, data in files.items() if (name, suffix) != ("index_out_of_range", "stl"))
    for suffix, data in whole.items():
        yield from ((f"cut_{share}.{suffix}", data[:int(len(data) * share / 100)]) for share in (1, 20, 50, 80, 99))
        yield f"empty.{suffix}", b""
        yield f"garbage.{suffix}", _garbage()
        yield f"head_then_garbage.{suffix}", data[:120] + _garbage()
        yield f"wrong_suffix_{suffix}.{'obj' if suffix != 'obj' else 'stl'}", data
    for count in ((10**9, 12), (8, 10**9), (2**62, 1), (8, 11)):
        yield f"counts_{count[0]}_{count[1]}.ply", ply_bytes(CUBE_V, CUBE_F, header=count)
    yield "list_length.ply", ply_bytes(CUBE_V, CUBE_F).replace(b"list uchar int", b"list uint int")
    yield "twice.ply", ply_bytes(CUBE_V, CUBE_F).replace(b"property float y", b"property float x")
    yield "strange.ply", ply_bytes(CUBE_V, CUBE_F).replace(b"format binary_little_endian", b"format binary_middle_endian")
    yield "text_words.ply", (b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
                             b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 a\n0 1 0\n3 0 1 2\n")
    yield "text_short.ply", (b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
                             b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0\n0 1 0\n9 0 1 2\n")
    yield "count_4e9.stl", stl_bytes(CUBE_V, CUBE_F, count=2**32 - 1)
    yield "text_cut.stl", b"solid x\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0"
    yield "counts.off", b"OFF\n1000000000 5 0\n0 0 0\n"
    yield "negative.off", b"OFF\n-5 -5 0\n0 0 0\n"
    yield "long_face.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n1000000000 0 1 2\n"
    yield "nan_index.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 nan 2\n"
    yield "words.obj", b"v a b c\nf 1 2 3\n"
    yield "big_index.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999999\n"
    yield "negative_index.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n"
    yield "slashes.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/2 2 3//\n"
    yield "long_line.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf " + b"1 2 3 " * 20_000 + b"\n"
    for name in ("../../../../etc/passwd", "/etc/passwd", "http://example.org/a.mtl", "C:\\a.mtl", "..\\..\\a.mtl", "a\0b.mtl"):
        yield f"mtllib_{len(name)}.obj", obj_text(CUBE_V, CUBE_F, f"mtllib {name}\n").encode()
    yield from _gltf_lies()


def _gltf_lies() -> Iterator[tuple[str, bytes]]:
    def changed(name: str, **paths: Any) -> tuple[str, bytes]:
        tree = gltf_tree(CUBE_V, CUBE_F)
        for path, value in paths.items():
            *way, last = path.split("__")
            at: Any = tree
            for key in way:
                at = at[int(key) if key.isdigit() else key]
            at[int(last) if last.isdigit() else last] = value
        return f"{name}.gltf", json.dumps(tree).encode()

    yield changed("uri_up", buffers__0__uri="../../etc/passwd")
    yield changed("uri_escaped", buffers__0__uri="%2e%2e/%2e%2e/etc/passwd")
    yield changed("uri_absolute", buffers__0__uri="/etc/passwd")
    yield changed("uri_file", buffers__0__uri="file:///etc/passwd")
    yield changed("uri_http", buffers__0__uri="http://127.0.0.1:1/a.bin")
    yield changed("uri_missing", buffers__0__uri="none.bin")
    yield changed("uri_itself", buffers__0__uri="uri_itself.gltf")
    yield changed("base64", buffers__0__uri="data:;base64,@@@@=")
    yield changed("count_huge", accessors__0__count=10**15)
    yield changed("count_negative", accessors__1__count=-3)
    yield changed("count_text", accessors__1__count="36")
    yield changed("count_true", accessors__1__count=True)
    yield changed("no_view", accessors__0={"componentType": 5126, "count": 10**9, "type": "VEC3"})
    yield changed("sparse", accessors__0__sparse={"count": 10**9, "indices": {"bufferView": 1, "componentType": 5125},
                                                  "values": {"bufferView": 0}})
    yield changed("sparse_index", accessors__0__sparse={"count": 1, "indices": {"bufferView": 0, "componentType": 5125},
                                                        "values": {"bufferView": 0}})
    yield changed("offset", bufferViews__1__byteOffset=10**12)
    yield changed("stride", bufferViews__0__byteStride=2)
    yield changed("stride_long", bufferViews__0__byteStride=252)
    yield changed("kind", accessors__0__type="MAT4")
    yield changed("component", accessors__1__componentType=5126)
    yield changed("cycle", nodes=[{"children": [1]}, {"children": [0], "mesh": 0}])
    yield changed("self", nodes=[{"children": [0], "mesh": 0}])
    yield changed("no_node", scenes=[{"nodes": [5]}])
    yield changed("node_text", nodes=["a"])
    yield changed("matrix", nodes=[{"mesh": 0, "matrix": [1, 2, 3]}])
    yield changed("matrix_nan", nodes=[{"mesh": 0, "matrix": [float("nan")] * 16}])
    yield changed("scale_huge", nodes=[{"mesh": 0, "scale": [1e200, 1e200, 1e200]}, {"children": [0], "scale": [1e200] * 3}],
                  scenes=[{"nodes": [1]}])
    yield changed("draco", extensionsRequired=["KHR_draco_mesh_compression"])
    yield changed("meshopt", bufferViews__0__extensions={"EXT_meshopt_compression": {"buffer": 0}})
    yield changed("instances", nodes=[{"mesh": 0} for _ in range(6_000)], scenes=[{"nodes": list(range(6_000))}])
    yield changed("mode", meshes__0__primitives__0__mode=17)
    yield changed("list_for_object", meshes=[[]])
    yield changed("version", asset={"version": "1.0"})
    deep = b'{"asset": {"version": "2.0"}, "extras": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "deep.gltf", deep
    yield "deep_open.gltf", b'{"asset":' * 200_000
    yield "length.glb", glb_bytes(gltf_tree(CUBE_V, CUBE_F), length=2**31)
    yield "json_chunk.glb", struct.pack("<4sIIII", b"glTF", 2, 40, 2**31, 0x4E4F534A) + b"{}" * 10
    tree = gltf_tree(CUBE_V, CUBE_F)
    # A picture of 60000 x 60000 pixels in a few bytes: the header is all that is read.
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60_000, 60_000) + b"\x08\x02\0\0\0" + b"\0\0\0\0"
    uv = {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC2"}
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}], "textures": [{"source": 0}],
             "images": [{"uri": "data:image/png;base64," + base64.b64encode(png).decode()}], "accessors": [*tree["accessors"], uv]}
    tree["meshes"][0]["primitives"][0] |= {"material": 0, "attributes": {"POSITION": 0, "TEXCOORD_0": 2}}
    yield "picture_bomb.gltf", json.dumps(tree).encode()
    tree["images"] = [{"uri": "../../secret.png"}]
    yield "picture_up.gltf", json.dumps(tree).encode()


def usd_files() -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files that OpenUSD reads."""
    nan = CUBE_V.copy()
    nan[3] = np.nan
    yield "nan.usda", usda_text(nan, CUBE_F).encode()
    yield "index.usda", usda_text(CUBE_V, np.concatenate([CUBE_F, [[0, 1, 800]]])).encode()
    text = usda_text(CUBE_V, CUBE_F)
    yield "counts.usda", text.replace("faceVertexCounts = [3", "faceVertexCounts = [2000000000").encode()
    yield "cut.usda", text[:len(text) // 2].encode()
    yield "reference_up.usda", usda_text(CUBE_V, CUBE_F, tail='def "a" (references = @../../../etc/passwd@) {}').encode()
    yield "reference_http.usda", usda_text(CUBE_V, CUBE_F, tail='def "a" (payload = @http://127.0.0.1:1/a.usd@) {}').encode()
    variant = 'def "b" (\nreferences = @/etc/hostname.usda@\n) {\n}\n'
    yield "reference_variant.usda", usda_text(
        CUBE_V, CUBE_F, tail='def "a" (\nvariants = {\nstring v = "y"\n}\nprepend variantSets = "v"\n) '
        '{\nvariantSet "v" = {\n"x" {\n' + variant + '}\n}\n}').encode()
    yield "expression.usda", usda_text(CUBE_V, CUBE_F, tail='def "a" (references = @`"/etc/${X}"`@) {}').encode()
    clips = 'clips = {\ndictionary default = {\nasset[] assetPaths = [@/etc/hostname.usda@]\nstring primPath = "/a"\n}\n}'
    yield "clips.usda", usda_text(CUBE_V, CUBE_F, tail='def "a" (\n' + clips + '\n) {\n}').encode()
    yield "cycle.usda", usda_text(CUBE_V, CUBE_F, head="subLayers = [@cycle.usda@]",
                                  tail='def "a" (references = @cycle.usda@</a>) {}').encode()
    yield "deep.usda", b"#usda 1.0\n" + b'def "a" {\n' * 60_000
    twice = "".join(f'def "l{i}" {{\ndef "a" (references = </l{i + 1}>) {{\n}}\ndef "b" (references = </l{i + 1}>) {{\n}}\n}}\n'
                    for i in range(22))
    bomb = "#usda 1.0\n" + twice + 'def Cube "l22" {}\n'
    yield "bomb.usda", bomb.encode()
    yield "garbage.usdc", b"PXR-USDC" + _garbage()
    yield "garbage.usdz", b"PK\3\4" + _garbage()
    yield "up.usdz", zip_bytes([("../up.usda", text.encode())])
    yield "absolute.usdz", zip_bytes([("/tmp/a.usda", text.encode())])
    yield "compressed.usdz", zip_bytes([("a.usda", text.encode() + b" " * 10**6)], compressed=True)
    yield "first.usdz", zip_bytes([("a.png", b"x"), ("a.usda", text.encode())])
    yield "words.usd", b"this is no stage"
    yield "empty.usdz", b""


def write_all(folder: Path, files: Iterator[tuple[str, bytes]]) -> list[Path]:
    """Write (name, content) into the folder."""
    out = []
    for name, data in files:
        (folder / name).write_bytes(data)
        out.append(folder / name)
    return out
