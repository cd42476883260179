"""Runs in the environment of requirements/depth-anything-3.txt, not in lyra-worlds' own: multi-view depth, one request per line.

Each line of stdin is a JSON object {"input": .npz, "output": .npz}; each answer on stdout is {"ok": true} or {"error": text}.
Input: rgb (N, H, W, 3) uint8, w2c (N, 4, 4), K (N, 3, 3). Output: depth (N, h, w), w2c (N, 4, 4) as predicted, sky (N, h, w) bool.
"""

from __future__ import annotations

import contextlib
import json
import sys


def main(model_name: str, process_res: int) -> None:
    """Load the model, say {"ready": true}, and answer until stdin closes."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        import torch
        from depth_anything_3.api import DepthAnything3

        known = model_name in ("da3-small", "da3-base", "da3-large", "da3-giant")
        # A bare size has no weights: it is for checks of the calls alone.
        model = DepthAnything3(model_name=model_name) if known else DepthAnything3.from_pretrained(model_name)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        # The package would scale depth to the given poses itself; its own poses are wanted instead, and aligned by the caller.
        model._align_to_input_extrinsics_intrinsics = lambda extrinsics, intrinsics, prediction, align: prediction
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                predict(model, job["input"], job["output"], process_res)
            answer = {"ok": True}
        except Exception as error:  # the caller raises it under its own name
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def predict(model, source: str, target: str, process_res: int) -> None:
    """Answer one request."""
    import numpy as np

    with np.load(source, allow_pickle=False) as data:
        rgb, w2c, K = data["rgb"], data["w2c"], data["K"]
    seen = model.inference(list(rgb), extrinsics=w2c, intrinsics=K, process_res=process_res or max(rgb.shape[1:3]))
    poses = np.tile(np.eye(4), (len(rgb), 1, 1))
    poses[:, :3] = np.asarray(seen.extrinsics)[:, :3]
    sky = np.zeros(seen.depth.shape, bool) if seen.sky is None else np.asarray(seen.sky) > 0.5
    np.savez(target, depth=np.asarray(seen.depth, np.float32), w2c=poses, sky=sky)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
