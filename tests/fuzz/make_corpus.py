"""Writes the seeds in tests/fuzz/corpus/ with Python's own modules, byte by byte from the formats' descriptions.

    python tests/fuzz/make_corpus.py

A file's name says what a parser must do with it: accepted-* or refused-*. Files found-* are inputs that once were findings of
a fuzzer; they are not written here and not removed.
"""
import gzip
import io
import json
import pathlib
import struct
import zipfile
import zlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def seed(parser, name, content):
    folder = CORPUS / parser
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def safetensors(tensors, metadata=None, data=None, pad=True):
    header, body = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + (body if data is None else data)


def make_safetensors():
    f32 = struct.pack("<6f", *range(6))
    seed("safetensors", "accepted-empty", safetensors({}))
    seed("safetensors", "accepted-metadata", safetensors({}, {"format": "pt", "k": "a\n\"\\"}))
    seed("safetensors", "accepted-one", safetensors({"attn.0": ("F32", [1, 2, 3], f32)}))
    seed("safetensors", "accepted-types", safetensors(
        {"d": ("F64", [2], struct.pack("<2d", 1.5, float("nan"))), "i": ("I32", [], struct.pack("<i", -7)),
         "h": ("F16", [2, 1], b"\x00\x3c\x00\x7c"), "b": ("BF16", [1], b"\x80\x3f"), "u": ("U8", [3], b"abc"),
         "f4": ("F4", [2], b"\x12"), "none": ("F32", [0, 5], b"")}, {"format": "pt"}))
    seed("safetensors", "accepted-names", safetensors({"é\U0001f600": ("U8", [1], b"x"), "\\\"/": ("BOOL", [1], b"\1")}))
    seed("safetensors", "accepted-escapes", (lambda h: struct.pack("<Q", len(h)) + h + b"z")(
        b'{ "\\u0041\\ud83d\\ude00\\n" : {"shape":[1],"dtype":"I8" , "data_offsets":[0,1]}}'))
    seed("safetensors", "refused-trailing", safetensors({"a": ("U8", [1], b"x")}, data=b"xyz"))
    seed("safetensors", "refused-truncated", safetensors({"a": ("F32", [6], f32)}, data=f32[:-1]))
    seed("safetensors", "refused-huge", (lambda h: struct.pack("<Q", len(h)) + h)(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'))
    seed("safetensors", "refused-twice", (lambda h: struct.pack("<Q", len(h)) + h + b"ab")(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'))
    seed("safetensors", "refused-hole", (lambda h: struct.pack("<Q", len(h)) + h + b"abc")(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}'))
    seed("safetensors", "refused-length", struct.pack("<Q", 2 ** 63) + b"{}")


def make_json():
    seed("json", "accepted-all", '{"a":[1,-2.5e-3,true,false,null,"\\u00e9\\n"],"b":{"c":{},"d":[]},"e":18446744073709551615}')
    seed("json", "accepted-number", " -0.0 ")
    seed("json", "accepted-deep", "[" * 60 + "]" * 60)
    seed("json", "refused-deep", "[" * 80 + "]" * 80)
    seed("json", "refused-twice", '{"a":{"b":1,"b":2}}')
    seed("json", "refused-comment", '{"a":1} // no')
    seed("json", "refused-utf8", b'{"a":"\xff"}')
    seed("json", "refused-surrogate", '{"a":"\\ud800"}')
    seed("json", "refused-infinite", "[1e999]")
    seed("json", "refused-empty", "")
    index = {"metadata": {"total_size": 12}, "weight_map": {"a.weight": "m-00001-of-00002.safetensors",
                                                             "b\u00e9": "m-00002-of-00002.safetensors"}}
    seed("shard_index", "accepted-two", json.dumps(index))
    seed("shard_index", "accepted-map-only", json.dumps({"weight_map": {"a": "x.safetensors"}}))
    for name, file in {"up": "../x.safetensors", "absolute": "/x.safetensors", "nul": "a\0.safetensors",
                       "backslash": "..\\x.safetensors", "other": "x.bin", "empty": ""}.items():
        seed("shard_index", f"refused-{name}", json.dumps({"weight_map": {"a": file}}))
    seed("shard_index", "refused-size", json.dumps({"metadata": {"total_size": -1}, "weight_map": {"a": "x.safetensors"}}))
    seed("shard_index", "refused-list", "[]")
    run = {"name": "x", "seed": 3, "data": {"kind": "mixture", "count": 100, "mixture": {"means": [[0, 1], [2, -3]]}},
           "path": {"family": "vp_linear", "beta_min": 0.1}, "network": {"kind": "mlp", "hidden": 8},
           "reward": {"kind": "quadratic", "centre": [0.5, 0.5], "precision": [[1, 0], [0, 1]]},
           "finetune": {"iterations": 2, "labels": [], "lr": {"peak": 1e-3, "decay": "cosine"}}}
    seed("config", "accepted-empty", "{}")
    seed("config", "accepted-mixture", json.dumps(run, indent=1))
    seed("config", "accepted-unet", json.dumps({"network": {"kind": "unet", "conditional": True, "unet": {"channels": [8, 16], "groups": 4, "attention_levels": [1]}},
                                                 "sample": {"samplers": ["ode"]}}))
    seed("config", "refused-unknown", '{"network":{"hiden":3}}')
    seed("config", "refused-empty-key", '{"":{"seed":3}}')
    seed("config", "refused-escape", '{"netw\\u001b[31mrok\\n":3}')
    seed("config", "refused-type", '{"seed":1.5}')
    seed("config", "refused-range", '{"pretrain":{"batch":0}}')
    seed("config", "refused-matrix", '{"reward":{"precision":[[1],2]}}')
    seed("set", "accepted-three", "seed=7\nnetwork.hidden=16\nname=a run")
    seed("set", "accepted-list", 'finetune.lr.peak=1e-4\nsample.samplers=["sde"]\ndata.only_labels=[1,2]\nname="x"')
    seed("set", "refused-no-value", "seed")
    seed("set", "refused-no-key", "=3")
    seed("set", "refused-unknown", "sede=3")
    seed("set", "refused-below", "seed.x=3")
    seed("set", "refused-bytes", b"na\xffme=\xfe\nx")


def npy(descr, shape, raw, fortran=False, version=1):
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    size = 2 if version == 1 else 4
    text += " " * (-(8 + size + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text.encode() + raw


def make_arrays():
    four = struct.pack("<4f", 1, -2.5, 0, float("inf"))
    seed("npy", "accepted-f4", npy("<f4", "(2, 2)", four))
    seed("npy", "accepted-fortran", npy("<f8", "(2, 3)", struct.pack("<6d", *range(6)), True))
    seed("npy", "accepted-scalar", npy("<i4", "()", struct.pack("<i", -1)))
    seed("npy", "accepted-v2", npy("|u1", "(3,)", b"abc", version=2))
    seed("npy", "accepted-v3", npy("<i8", "(1,)", struct.pack("<q", 2 ** 40), version=3))
    seed("npy", "accepted-bool", npy("|b1", "(2,)", b"\0\1"))
    seed("npy", "accepted-half", npy("<f2", "(2, 0)", b""))
    seed("npy", "refused-object", npy("|O", "(1,)", b"\x80\x04N."))
    seed("npy", "refused-big-endian", npy(">f4", "(4,)", four))
    seed("npy", "refused-short", npy("<f4", "(2, 3)", four))
    seed("npy", "refused-wraps", npy("<f4", "(4294967296, 4294967296)", four))
    seed("npy", "refused-negative", npy("<f4", "(-4,)", four))
    seed("npy", "refused-call", npy("<f4", "(__import__('os'),)", four))
    seed("npy", "refused-magic", b"\x93NUMPX\1\0")
    idx = lambda kind, dims, raw: bytes([0, 0, kind, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + raw
    seed("idx", "accepted-pictures", idx(8, [2, 2, 3], bytes(range(0, 252, 21))))
    seed("idx", "accepted-labels", idx(8, [5], b"\0\1\2\x09\1"))
    seed("idx", "accepted-f32", idx(13, [2], struct.pack(">2f", 0.5, float("nan"))))
    seed("idx", "accepted-none", idx(8, [0], b""))
    seed("idx", "refused-short", idx(8, [2, 2, 3], b"abc"))
    seed("idx", "refused-long", idx(11, [1], b"abc"))
    seed("idx", "refused-wraps", idx(14, [2 ** 32 - 1] * 8, b""))
    seed("idx", "refused-type", idx(7, [1], b"x"))
    seed("idx", "refused-no-axes", idx(8, [], b""))
    seed("csv", "accepted-plain", "1,2\n3,4\n")
    seed("csv", "accepted-header", '\ufeffx,"y ""z""",label\r\n# note\r\n1.5, -2e3 ,0\r\n"3",4,1')
    seed("csv", "accepted-one", "7")
    seed("csv", "refused-ragged", "1,2\n3\n")
    seed("csv", "refused-quote", '1,"2\n')
    seed("csv", "refused-word", "1,2\nthree,4\n")
    seed("csv", "refused-nan", "1,nan\n")
    seed("csv", "refused-empty", "")
    seed("csv", "refused-bytes", b"\xff\x1b[31m,1\n2,\x00\n")


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, before=b"", interlace=0, header=None):
    ihdr = header or struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def make_pictures():
    grey = b"".join(b"\0" + bytes([10 * y, 20 * y, 255]) for y in range(2))
    seed("png", "accepted-grey", png(3, 2, 8, 0, grey))
    seed("png", "accepted-rgb", png(1, 2, 8, 2, b"\1\1\2\3\2\4\5\6"))
    seed("png", "accepted-palette", png(5, 1, 2, 3, b"\0\x1b\x40", chunk(b"PLTE", bytes(range(12)))))
    seed("png", "accepted-deep", png(2, 1, 16, 0, b"\0\xff\xff\x12\x34"))
    seed("png", "accepted-alpha", png(1, 1, 8, 6, b"\0\xff\x80\0\x7f"))
    seed("png", "accepted-interlaced", png(2, 2, 8, 0, b"\0\x10\0\x20\0\x30\x40", interlace=1))
    seed("png", "accepted-key", png(1, 1, 8, 2, b"\0\1\2\3", chunk(b"tRNS", b"\0\1\0\2\0\3")))
    seed("png", "accepted-text", png(3, 2, 8, 0, grey, chunk(b"tEXt", b"Title\0x") + chunk(b"gAMA", struct.pack(">I", 45455))))
    seed("png", "refused-crc", png(3, 2, 8, 0, grey)[:-1] + b"\0")
    seed("png", "refused-truncated", png(3, 2, 8, 0, grey)[:-20])
    seed("png", "refused-large", png(2 ** 30, 2 ** 30, 8, 0, grey))
    seed("png", "refused-bomb", png(1000, 1000, 8, 0, b"\0" * 1001000))
    seed("png", "refused-no-palette", png(5, 1, 2, 3, b"\0\x1b\x40"))
    seed("png", "refused-empty", b"")
    one = gzip.compress(b"abcabcabc", mtime=0)
    out = io.BytesIO()
    with gzip.GzipFile("name", "wb", mtime=1, fileobj=out) as f:
        f.write(b"with a name")
    seed("gzip", "accepted-one", one)
    seed("gzip", "accepted-two", one + out.getvalue())
    seed("gzip", "refused-tail", one + b"tail")
    seed("gzip", "refused-crc", one[:-5] + b"\0" + one[-4:])
    seed("gzip", "refused-truncated", one[:-3])
    seed("gzip", "refused-bomb", gzip.compress(b"\0" * 100000, mtime=0))
    seed("gzip", "refused-plain", b"plain")


def make_archives():
    def archive(members, method=zipfile.ZIP_STORED, wide=True, comment=b""):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as z:
            z.comment = comment
            for name, content in members:
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.compress_type = method
                with z.open(info, "w", force_zip64=wide) as f:  # as NumPy writes them
                    f.write(content)
        return out.getvalue()

    def edited(content, at, new):
        return content[:at] + new + content[at + len(new):]
    two = [("x.npy", npy("<f4", "(2, 3)", struct.pack("<6f", *range(6)))),
           ("label\u00e9.npy", npy("<i4", "(2,)", struct.pack("<2i", 3, 1)))]
    plain, packed = archive(two), archive(two, zipfile.ZIP_DEFLATED)
    entry = plain.index(b"PK\x01\x02")  # of the first array in the directory
    seed("npz", "accepted-none", b"PK\x05\x06" + b"\0" * 18)
    seed("npz", "accepted-stored", plain)
    seed("npz", "accepted-deflated", packed)
    seed("npz", "accepted-narrow", archive(two, wide=False))
    seed("npz", "accepted-comment", archive(two, comment=b"PK\x05\x06 is no end"))
    # The end of a ZIP64 directory, with a locator, before an end whose numbers are saturated.
    end = plain.index(b"PK\x05\x06")
    count, size, begin = struct.unpack("<HII", plain[end + 10:end + 20])
    wide_end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    saturated = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    seed("npz", "accepted-zip64", plain[:end] + wide_end + locator + saturated)
    seed("npz", "refused-zip64-elsewhere", plain[:end] + wide_end + struct.pack("<4sIQI", b"PK\x06\x07", 0, end + 1, 1) + saturated)
    # Extents of the first array in the field of ZIP64, behind a field of another kind; and too few of them.
    def widened(extents):
        at, after = entry, plain.index(b"PK\x01\x02", entry + 4)
        name = struct.unpack("<H", plain[at + 28:at + 30])[0]
        extra = struct.pack("<HHI", 0x5455, 4, 7) + struct.pack("<HH%dQ" % len(extents), 1, 8 * len(extents), *extents)
        head = edited(plain[at:at + 46 + name], 20, struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF))
        head = edited(edited(head, 42, struct.pack("<I", 0xFFFFFFFF)), 30, struct.pack("<H", len(extra)))
        directory = head + extra + plain[after:end]
        return plain[:at] + directory + edited(plain[end:], 12, struct.pack("<I", len(directory)))
    packed_size, whole_size = struct.unpack("<II", plain[entry + 20:entry + 28])
    seed("npz", "accepted-wide-extents", widened([whole_size, packed_size, 0]))
    seed("npz", "refused-wide-extents", widened([whole_size, packed_size]))
    many = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 70000, 70000, size, begin)
    seed("npz", "refused-many", plain[:end] + many + locator + saturated)
    seed("npz", "refused-truncated", plain[:-1])
    seed("npz", "refused-tail", plain + b"tail")
    seed("npz", "refused-checksum", edited(packed, packed.index(b"PK\x01\x02") + 16, b"abcd"))
    seed("npz", "refused-encrypted", edited(plain, entry + 8, b"\1"))
    seed("npz", "refused-method", edited(plain, entry + 10, b"\x0c"))
    seed("npz", "refused-elsewhere", edited(plain, entry + 42, b"\7"))
    seed("npz", "refused-bomb", edited(packed, packed.index(b"PK\x01\x02") + 24, b"\xff\xff\xff\x7f"))
    seed("npz", "refused-long", archive([("x.npy", b"\0" * 100000)], zipfile.ZIP_DEFLATED))
    seed("npz", "refused-entries", edited(plain, end + 8, b"\3\0\3\0"))
    seed("npz", "refused-parts", edited(plain, end + 4, b"\1"))
    seed("npz", "refused-path", archive([("../x.npy", two[0][1])]))
    seed("npz", "refused-text", archive([("x.txt", b"x")]))
    seed("npz", "refused-empty", b"")
    twice = archive([("x.npy", two[0][1]), ("y.npy", two[0][1])]).replace(b"y.npy", b"x.npy")
    seed("npz", "refused-twice", twice)


def crc32c(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def make_manifests():
    def manifest(lines, checksum=None, tail=""):
        text = "costate folder 1\n" + "".join(line + "\n" for line in lines)
        return text + "%08x manifest\n" % (crc32c(text.encode()) if checksum is None else checksum) + tail
    two = ["3f6c0bd1 1024 state.safetensors", "00000000 0 progress.json"]
    seed("manifest", "accepted-none", manifest([]))
    seed("manifest", "accepted-two", manifest(two))
    seed("manifest", "accepted-large", manifest(["ffffffff 18446744073709551615 a-b_c.d"]))
    seed("manifest", "refused-empty", "")
    seed("manifest", "refused-checksum", manifest(two, checksum=1))
    seed("manifest", "refused-tail", manifest(two, tail="x"))
    seed("manifest", "refused-truncated", manifest(two)[:-10])
    seed("manifest", "refused-twice", manifest([two[0], two[0]]))
    seed("manifest", "refused-path", manifest(["00000000 0 ../a"]))
    seed("manifest", "refused-size", manifest(["00000000 18446744073709551616 a"]))
    seed("manifest", "refused-zeros", manifest(["00000000 007 a"]))
    seed("manifest", "refused-capitals", manifest(["3F6C0BD1 7 a"]))


make_safetensors()
make_manifests()
make_json()
make_arrays()
make_pictures()
make_archives()
