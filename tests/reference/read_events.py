"""Compares the event files of a run with its other files, as TensorBoard itself reads them (tensorboard 2.x, numpy).

    python tests/reference/read_events.py PROGRAM [FOLDER]

Runs the program on a tiny problem with log.tensorboard, in FOLDER or a temporary one, and compares: every number of metrics.jsonl,
every picture of samples/, the histograms of rewards with evaluation.json. Then fine-tunes again, shorter, while TensorBoard's
reader stays open, and again with a reader that begins anew: neither may show rows of the stage that was replaced.
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy
from tensorboard.backend.event_processing import event_accumulator

CONFIG = {
    "name": "events", "data": {"kind": "glyphs", "resolution": 8, "count": 300, "held_out": 0.3},
    "network": {"hidden": 16, "depth": 2, "conditional": True}, "pretrain": {"iterations": 20, "batch": 32, "log_every": 2},
    "classifiers": {"reward": {"iterations": 10}, "judge": {"iterations": 10}},
    "reward": {"kind": "classifier", "targets": [3, 8]}, "sampler": {"steps": 5},
    "finetune": {"iterations": 12, "batch": 16, "log_every": 2}, "sample": {"count": 20}, "evaluate": {"count": 200, "projections": 4},
    "log": {"tensorboard": True}}
# 0: keep everything.
SIZES = {event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0, event_accumulator.HISTOGRAMS: 0,
         event_accumulator.COMPRESSED_HISTOGRAMS: 0}


def reader(folder):
    r = event_accumulator.EventAccumulator(str(folder), size_guidance=SIZES)
    r.Reload()
    return r


def scalars(r):
    return {(tag, e.step): numpy.float32(e.value) for tag in r.Tags()["scalars"] for e in r.Scalars(tag)}


def metrics(run, stage):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(name, row["step"]): numpy.float32(math.nan if v is None else v)
            for row in rows if row["stage"] == stage for name, v in row.items() if name not in ("stage", "step")}


def same(found, expected, what):
    assert found.keys() == expected.keys(), (what, sorted(found.keys() ^ expected.keys()))
    for key, v in expected.items():
        assert found[key] == v or (numpy.isnan(v) and numpy.isnan(found[key])), (what, key, found[key], v)
    assert expected
    print(f"{what}: {len(expected)} numbers equal")


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    run = folder / "run"

    def costate(command, *more):
        subprocess.run([program, command, "config.json", "--out", "run", "--overwrite", "--quiet", *more], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)

    costate("run")
    for stage in ("pretrain", "reward_classifier", "judge", "finetune"):
        same(scalars(reader(run / "tensorboard" / stage)), metrics(run, stage), stage)
    pictures = reader(run / "tensorboard/sample")
    tags = pictures.Tags()["images"]
    assert len(tags) == 5, tags
    for tag in tags:
        (event,) = pictures.Images(tag)
        file = (run / "samples" / f"{tag}.png").read_bytes()
        assert event.encoded_image_string == file, tag
        assert (event.width, event.height) == (int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")), tag
    print(f"pictures: {len(tags)} files equal")
    rewards = reader(run / "tensorboard/evaluate")
    evaluation = json.loads((run / "evaluation.json").read_text())
    tags = rewards.Tags()["histograms"]
    assert len(tags) == 4, tags
    for tag in tags:
        (event,) = rewards.Histograms(tag)
        h, wanted = event.histogram_value, evaluation["samples"][tag.split("/")[1]]["reward"]
        n = CONFIG["evaluate"]["count"]
        assert h.num == n and abs(sum(h.bucket) - n) < 1e-9 and len(h.bucket) == len(h.bucket_limit), tag
        assert abs(h.sum / n - wanted["value"]) < 1e-9 * max(1, abs(wanted["value"])), tag
        variance = (h.sum_squares - h.sum ** 2 / n) / (n - 1)
        assert abs(math.sqrt(variance / n) - wanted["standard_error"]) < 1e-6 * max(1, wanted["standard_error"]), (tag, variance, wanted)
    print(f"histograms: {len(tags)} agree with evaluation.json")

    watching = reader(run / "tensorboard/finetune")
    costate("finetune", "--set", "finetune.iterations=6")
    watching.Reload()
    wanted = metrics(run, "finetune")
    assert max(step for _, step in wanted) == 6
    same(scalars(reader(run / "tensorboard/finetune")), wanted, "finetune again, a new reader")
    same(scalars(watching), wanted, "finetune again, a reader that stayed open")


main()
