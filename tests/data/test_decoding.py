"""The same bytes are the same pixels for every reader, and they are those that Pillow reads."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from benchbench import BadInput, decode_images
from benchbench.data.decoding import LIMIT, read_image
from benchbench.data.encoded_images import Encoded
from benchbench.data.preparation import prepare
from benchbench.store.artifacts import Store
from benchbench_files import arrays, folder, table

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
RGB = Image.fromarray(PIXELS)


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind, data, crc=0):
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) ^ crc)
    )


def png(colour, channels, value):
    """A PNG of 16 bits, which Pillow does not write in colour: 4 × 4 pixels, each ``value``."""
    row = b"\0" + struct.pack(">H", value) * 4 * channels
    head = struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(bits, order, pixels):
    """A grey TIFF of one row, as Adobe's specification of 1992 lays it out, not by Pillow."""
    big, size = order == ">", len(pixels)
    if bits == 16:
        data = struct.pack(f"{order}{size}H", *pixels)
    else:  # two pixels in three bytes, the highest bits first
        pairs = zip(pixels[::2], pixels[1::2], strict=True)
        data = b"".join((a << 12 | b).to_bytes(3) for a, b in pairs)
    tags = [(256, 4, size), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 4, 1), (279, 4, len(data))]  # fmt: skip
    fields = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + struct.pack(f"{order}{'I' if kind == 4 else 'H2x'}", value)
        for tag, kind, value in tags
    )
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + fields + b"\0\0\0\0"


def turned():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def transparent(mode):
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray(PIXELS[:, :, 0]))
    return image.convert(mode)


EIGHT_BITS = {
    "jpeg": encoded(RGB, "JPEG", quality=90),
    "jpeg, grey": encoded(RGB.convert("L"), "JPEG"),
    "jpeg, CMYK": encoded(RGB.convert("CMYK"), "JPEG"),
    "jpeg, turned": encoded(RGB, "JPEG", exif=turned()),
    "png": encoded(RGB, "PNG"),
    "png, turned": encoded(RGB, "PNG", exif=turned()),
    "png, RGBA": encoded(transparent("RGBA"), "PNG"),
    "png, LA": encoded(transparent("LA"), "PNG"),
    "png, palette": encoded(RGB.quantize(9), "PNG", transparency=3),
    "png, 1 bit": encoded(RGB.convert("1"), "PNG"),
    "gif, three frames": encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)] * 2),
    "tiff, two pages": encoded(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)]),
    "webp": encoded(transparent("RGBA"), "WEBP", lossless=True),
    "bmp": encoded(RGB, "BMP"),
    "ppm": encoded(RGB, "PPM"),
    "pgm of 100": b"P5 2 2 100\n\x00\x32\x64\x0a",
}
LEVELS = [0, 300, 20000, 65535]
SIXTEEN_BITS = {  # a row of LEVELS
    "png": encoded(Image.fromarray(np.array([LEVELS], np.uint16)), "PNG"),
    "tiff": tiff(16, "<", LEVELS),
    "tiff, big-endian": tiff(16, ">", LEVELS),
    "pgm": b"P5 4 1 65535\n" + struct.pack(">4H", *LEVELS),
    "pgm, as text": f"P2 4 1 65535 {' '.join(map(str, LEVELS))}\n".encode(),
}


def as_pillow(content, size):
    """What the loaders of torchvision and timm give: `pil_loader`, and a bilinear resize."""
    with Image.open(io.BytesIO(content)) as file:
        image = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_eight_bits_are_what_pillow_reads(kind):
    for size in (1, 6, 9):
        found = decode_images([EIGHT_BITS[kind]], size)[0]
        assert np.array_equal(found, as_pillow(EIGHT_BITS[kind], size))


def test_orientation_is_not_applied_and_transparency_is_dropped():
    upright, lying = (decode_images([EIGHT_BITS[kind]], 6) for kind in ("png", "png, turned"))
    assert np.array_equal(upright, lying)
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert decode_images([encoded(clear, "PNG")], 4)[0, :, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_sixteen_bits_are_divided_by_256(kind, tmp_path):
    (tmp_path / "image").write_bytes(SIXTEEN_BITS[kind])
    for image in (tmp_path / "image", SIXTEEN_BITS[kind]):
        found = decode_images([image], 4)  # one row becomes four that are equal
        assert (found == np.array([level // 256 for level in LEVELS])).all()


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_colour_or_with_transparency_are_too(colour, channels):
    assert (decode_images([png(colour, channels, 20000)], 4) == 20000 // 256).all()


def test_twelve_bits_of_a_tiff_that_says_so_are_divided_by_16():
    levels = [0, 300, 2000, 4095]
    found = decode_images([tiff(12, "<", levels)], 4)
    assert (found == np.array([level // 16 for level in levels])).all()
    with pytest.raises(BadInput, match="image 0 cannot be decoded"):  # Pillow reads no such file
        decode_images([tiff(12, ">", levels)], 4)


def test_all_readers_have_one_decoder(tmp_path):
    """The file decoded alone, in a folder, in a table, packed in an npz, and kept encoded."""
    kinds = {"png": EIGHT_BITS["jpeg, turned"], "deep": SIXTEEN_BITS["png"],
             "pgm": SIXTEEN_BITS["pgm"], "clear": EIGHT_BITS["png, palette"]}  # fmt: skip
    contents = [*kinds.values()] * 2
    rows = ["path,label,domain"]
    for number, content in enumerate(contents):
        place = tmp_path / "ab"[number // 4] / "x" / f"{number}.png"  # Pillow asks the content
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        rows.append(f"{place.relative_to(tmp_path)},x,{place.parts[-3]}")
    (tmp_path / "a/table.csv").write_text("")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    np.savez(
        tmp_path / "x.npz",
        packed=np.frombuffer(b"".join(contents), np.uint8),
        offsets=np.cumsum([0, *map(len, contents)]),
        labels=np.zeros(8, int),
        label_names=np.array(["x"]),
        domain=np.arange(8) // 4,
        domain_names=np.array(["a", "b"]),
    )
    (tmp_path / "kept.bytes").write_bytes(b"".join(contents))
    np.save(tmp_path / "kept.starts.npy", np.cumsum([0, *map(len, contents)]))
    with pytest.warns(match="are not read"):
        listed = folder(tmp_path, size=5)
    alone = np.stack([read_image(io.BytesIO(content), 5) for content in contents])
    store = Store(tmp_path / ".store")
    for inputs in (
        prepare(listed, store, 0, lambda *_: None)[0].inputs,
        prepare(table(tmp_path, size=5), store, 0, lambda *_: None)[0].inputs,
        arrays(tmp_path, size=5).inputs,
        Encoded(tmp_path / "kept.bytes", 5, None)[:],
    ):
        assert np.array_equal(inputs.numpy(), alone)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encoded(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), "signed or 32-bit integers"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floats"),
        (b"Pf 1 1 -1.0\n" + np.float32(0.5).tobytes(), "floats"),
    ],
)
def test_other_depths_are_refused_alike(content, kind, tmp_path):
    with pytest.raises(BadInput, match=f"^x.npz: image 0 cannot be decoded: its pixels are {kind}"):
        decode_images([content], 4, "x.npz")
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(BadInput, match=f"^image .*1.png cannot be decoded: its pixels are {kind}"):
        decode_images([tmp_path / "1.png"], 4)


def after(content, head, part):
    return content[:head] + part + content[head:]


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


NOISE = bytes(np.random.default_rng(1).integers(0, 256, 90, np.uint8))
JPEG, PNG = EIGHT_BITS["jpeg"], EIGHT_BITS["png"]
BROKEN = {
    "jpeg, EXIF": (JPEG, after(JPEG, 2, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + NOISE))),
    "jpeg, JFIF": (JPEG, after(JPEG, 2, segment(0xE0, b"JFIF\0"))),
    "jpeg, Adobe": (JPEG, after(JPEG, 2, segment(0xEE, b"Adobe\0"))),
    "jpeg, Photoshop": (JPEG, after(JPEG, 2, segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"))),
    "jpeg, several pictures": (JPEG, after(JPEG, 2, segment(0xE2, b"MPF\0II*\0" + NOISE))),
    "jpeg, CMYK": (
        EIGHT_BITS["jpeg, CMYK"],
        after(EIGHT_BITS["jpeg, CMYK"], 2, segment(0xE0, b"JFIF\0")),
    ),
    "png, sum": (PNG, after(PNG, 33, chunk(b"tEXt", b"a\0b", crc=1))),
    "png, profile": (PNG, after(PNG, 33, chunk(b"iCCP", NOISE))),
    "png, gamma": (PNG, after(PNG, 33, chunk(b"gAMA", b"\0"))),
    "png, frames": (PNG, after(PNG, 33, chunk(b"acTL", b"\0"))),
    "png, large text": (
        PNG,
        after(PNG, 33, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 2_000_000))),
    ),
    "png, many texts": (
        PNG,
        after(PNG, 33, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 1_000_000)) * 70),
    ),
    "png, cut after the pixels": (PNG, PNG[:-12] + chunk(b"tEXt", NOISE)[:50]),
    "webp, EXIF": (
        encoded(RGB, "WEBP", lossless=True),
        encoded(RGB, "WEBP", lossless=True, exif=NOISE),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_metadata_do_not_matter(kind):
    whole, broken = BROKEN[kind]
    assert np.array_equal(decode_images([broken], 6)[0], as_pillow(whole, 6))


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", NOISE, JPEG[:-60], PNG[:60], PNG[:33], b"\xff\xd8"]
)
def test_pixels_that_are_not_there_are_one_sentence(content):
    with pytest.raises(BadInput, match=r"^x: image 1 cannot be decoded: ") as caught:
        decode_images([PNG, content], 4, "x")
    assert "\n" not in str(caught.value) and "BytesIO" not in str(caught.value)


def test_the_limit_of_pixels_can_be_raised(monkeypatch):
    """Of an image of 16 pixels; Pillow's own limit is checked when the file is opened."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    content = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG")
    told = rf"it has more than 14 pixels; make it smaller, or set the environment variable {LIMIT}"
    with pytest.raises(BadInput, match=told):
        decode_images([content], 4)
    monkeypatch.setenv(LIMIT, "16")
    assert decode_images([content], 4)[0, :, 0, 0].tolist() == [1, 2, 3]  # and no warning of half
    for wrong in ("many", "-1", "0", "1e9", "²"):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.raises(BadInput, match=f"{LIMIT} is '.*', not a number of pixels"):
            decode_images([content], 4)


def test_twelve_bits_in_sixteen_are_told_once(tmp_path):
    dark, light = (Image.fromarray(np.full((4, 4), v, np.uint16)) for v in (4095, 4096))
    words = "^the 3 images of 16 bits hold no value above 4,095, as if they had 12 bits"
    with pytest.warns(match=words) as told:
        decode_images([encoded(dark, "PNG")] * 3, 4)
    assert len(told) == 1
    decode_images([encoded(dark, "PNG"), encoded(light, "PNG"), PNG], 4)  # without a warning
    decode_images([encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), PNG], 4)
    for path in ("a/x/1.png", "a/x/2.png", "b/x/1.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        dark.save(tmp_path / path)
    with pytest.warns(match=words) as told:
        prepare(folder(tmp_path, size=4), Store(tmp_path / ".s"), 0, lambda *_: None)
    assert len(told) == 1


@pytest.mark.parametrize("size", [0, -5, 65_536, 2**70])
def test_a_size_that_no_image_has_is_refused(size):
    with pytest.raises(BadInput, match=f"size = {size} must lie between 1 and 65,535"):
        decode_images([PNG], size)


def test_more_pixels_than_memory_are_one_sentence():
    with pytest.raises(BadInput, match="100,000 images of size = 65535 take .* GB of memory"):
        decode_images([PNG] * 100_000, 65_535)


@pytest.mark.parametrize("shape", [(4,), (4, 0), (0, 4, 3), (4, 4, 2), (4, 4, 3, 1)])
def test_arrays_that_are_no_images_are_refused(shape):
    with pytest.raises(BadInput, match=r"x: image 0 is uint8 \[.*\], not uint8 \[H, W\]"):
        decode_images([np.zeros(shape, np.uint8)], 4, "x")
    with pytest.raises(BadInput, match="x: image 0 is float32"):
        decode_images([np.zeros((4, 4, 3), np.float32)], 4, "x")
