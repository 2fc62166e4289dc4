"""Tiny folders in the true layouts of datasets, with colours that tell class and domain."""

import csv
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from benchbench_files.layouts import Layout
from benchbench_imagenet.subclasses import SPLITS


def paint(path: Path, label: int, domain: int, sides=(24, 20), mode="RGB") -> None:
    """An image whose mean colour says its class and its domain; noise makes it the only one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list("/".join(path.parts[-3:]).encode()))
    colour = np.array([40 + 60 * (label % 4), 40 + 60 * (label // 4), 60 + 25 * domain])
    pixels = np.clip(colour + rng.normal(0, 15, (*sides[::-1], 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def table(path: Path, head: str, rows, quoting=csv.QUOTE_MINIMAL) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting)
        writer.writerow(head.split(","))
        writer.writerows(rows)


def released(root: Path, name: str, version: str) -> Path:
    top = root / f"{name}_v{version}"
    top.mkdir(parents=True)
    (top / f"RELEASE_v{version}.txt").write_text("made for a test\n")
    return top


def camelyon17(root: Path) -> None:
    top, rows = released(root, "camelyon17", "1.0"), []
    for centre, slide, place in product(range(5), range(2), range(8)):
        patient, node, label = f"{4 * (10 * centre + slide):03d}", slide, place % 2
        name = f"patient_{patient}_node_{node}"
        split = int(place >= 6)
        numbers = (patient, node, place, 2 * place, label, 10 * centre + slide, centre, split)
        rows.append((len(rows), *numbers))
        paint(top / f"patches/{name}/patch_{name}_x_{place}_y_{2 * place}.png", label, centre,
              (96, 96), "RGBA")  # fmt: skip
    table(top / "metadata.csv", ",patient,node,x_coord,y_coord,tumor,slide,center,split", rows)
    top, rows = released(root, "camelyon17_unlabeled", "1.0"), []
    for centre, place in product(range(5), range(12)):
        name = f"patient_{centre:03d}_node_0"
        rows.append((len(rows), f"{centre:03d}", 0, place, place, -1, 10 * centre, centre))
        paint(top / f"patches/{name}/patch_{name}_x_{place}_y_{place}.png", place % 2, centre)
    table(top / "metadata.csv", ",patient,node,x_coord,y_coord,tumor,slide,center", rows)


def iwildcam(root: Path) -> None:
    top, rows = released(root, "iwildcam", "2.0"), []
    for camera, label, shot in product(range(4), range(3), range(8)):
        split = {2: ["val"], 3: ["test"]}.get(camera, ["train", "train", "id_val", "id_test"])
        name, when = f"{camera}{label}{shot}.jpg", f"2013-01-0{1 + shot} 01:02:03.000"
        numbers = (camera, len(rows) // 2, label, when, name)
        rows.append((split[shot % len(split)], *numbers))
        paint(top / "train" / name, label, camera)
    table(top / "metadata.csv",
          "split,location_remapped,sequence_remapped,y,datetime,filename", rows)  # fmt: skip
    table(top / "categories.csv", "y,name", [(0, "empty"), (1, "zebra"), (2, "lion")])
    top, rows = released(root, "iwildcam_unlabeled", "1.0"), []
    for shot in range(12):
        rows.append((f"u{shot}", 0, shot, "", (shot % 3, -1, 99999)[shot % 3]))
        paint(top / "images" / f"u{shot}.jpg", shot % 3, 5)
    table(top / "metadata.csv", "uid,location_remapped,sequence_remapped,datetime,y", rows)


def fmow(root: Path) -> None:
    top, rows = released(root, "fmow", "1.1"), []
    countries, uses = ("USA", "FRA", "XXX"), ("airport", "zoo")
    splits = ("train", "val", "test", "seq")
    grid = product((2002, 2012, 2014, 2016, 2017), range(3), range(2), splits, range(2))
    for year, country, use, split, again in grid:
        fraction = ".643" if len(rows) % 7 == 6 else ""  # as some of the real ones have
        when = f"{year}-0{1 + again}-15T10:19:07{fraction}Z"
        paint(top / "images" / f"rgb_img_{len(rows)}.png", use, country)
        rows.append((split, uses[use], when, countries[country]))
    table(top / "rgb_metadata.csv", "split,category,timestamp,country_code", rows)
    table(top / "country_code_mapping.csv", "alpha-3,region",
          [("USA", "Americas"), ("FRA", "Europe")])  # fmt: skip


def rxrx1(root: Path) -> None:
    top, rows = released(root, "rxrx1", "1.0"), []
    batches = [("HEPG2-01", "train"), ("HEPG2-02", "train"), ("HEPG2-08", "val"),
               ("HEPG2-09", "test"), ("RPE-08", "test")]  # fmt: skip
    grid = product(enumerate(batches), (1, 2), range(2), (1, 2), range(2))
    for (number, (batch, split)), plate, label, site, again in grid:
        well = f"{'BC'[again]}0{2 + label}"
        rows.append((batch.split("-")[0], split, batch, plate, well, site, label))
        paint(top / f"images/{batch}/Plate{plate}/{well}_s{site}.png", label, number)
    table(top / "metadata.csv", "cell_type,dataset,experiment,plate,well,site,sirna_id", rows)


def domainnet(root: Path) -> None:
    top, rows = released(root, "domainnet", "1.0"), []
    domains = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    classes = [("airplane", 1), ("zebra", 343)]
    for (number, domain), (name, label), split, shot in product(
        enumerate(domains), classes, ("train", "test"), range(5)
    ):
        path = f"{domain}/{name}/{split}_{shot}.jpg"
        rows.append((path, domain, split, name, label))
        paint(top / path, label % 2, number)
    head = "image_path,domain,split,category,y"
    table(top / "metadata.csv", head, rows, csv.QUOTE_NONNUMERIC)
    few = [(*row[:4], row[4] % 40) for row in rows if row[1] not in ("infograph", "quickdraw")]
    table(top / "sentry_metadata.csv", head, few, csv.QUOTE_NONNUMERIC)


def waterbirds(root: Path) -> None:
    top, rows = released(root, "waterbirds", "1.0"), []
    for split, label, place, shot in product(range(3), range(2), range(2), range(4)):
        name = f"{label:03d}/{split}{place}{shot}.jpg"
        rows.append((len(rows), name, label, split, place))
        paint(top / name, label, place)
    table(top / "metadata.csv", "img_id,img_filename,y,split,place", rows)


def celeba(root: Path) -> None:
    top, attributes, parts = released(root, "celebA", "1.0"), [], []
    for split, blond, male, _ in product(range(3), range(2), range(2), range(4)):
        name = f"{len(parts) + 1:06d}.jpg"
        attributes.append((name, 2 * blond - 1, 2 * male - 1))
        parts.append((name, split))
        paint(top / "img_align_celeba" / name, blond, male)
    table(top / "list_attr_celeba.csv", "image_id,Blond_Hair,Male", attributes)
    table(top / "list_eval_partition.csv", "image_id,partition", parts)


def poverty(root: Path) -> None:
    """In every fold, three countries train; of their 2,040 places, 2,000 do not."""
    countries = ("angola", "benin", "cameroon", "democratic_republic_of_congo", "kenya")
    rng = np.random.default_rng(0)

    def plant(folder: Path, row: int, wealth: float, country: int) -> None:
        bands = np.full((8, 6, 5), 0.2 * country, np.float32)
        bands[0] = 2 * wealth
        np.savez(folder / f"landsat_poverty_img_{row}.npz", x=bands)

    top, rows = released(root, "poverty", "1.1"), []
    (top / "images").mkdir()
    for number, country in enumerate(countries):
        for _ in range(680):
            urban, wealth = len(rows) % 2, float(rng.normal())
            plant(top / "images", len(rows), wealth, number)
            rows.append((country, urban, wealth, 2010))
    table(top / "dhs_metadata.csv", "country,urban,wealthpooled,year", rows)
    top, rows = released(root, "poverty_unlabeled", "1.0"), []
    (top / "images").mkdir()
    for (number, country), _ in product(enumerate(countries), range(12)):
        plant(top / "images", len(rows), float(rng.normal()), number)
        rows.append((country,))
    table(top / "unlabeled_metadata.csv", "country", rows)


def amazon(root: Path) -> None:
    """A word of the stars, and one of the user."""
    words = ("awful", "bad", "fair", "good", "great")
    top, rows, splits = released(root, "amazon", "2.1"), [], []
    users = ((0, 0), (0, 1), (1, 2), (3, 3), (3, 4), (11, 2), (12, 3), (13, 5), (-1, 6))
    for (split, user), stars, shot in product(users, range(5), range(6)):
        part = {0: 0, 4: 2, 5: 4}.get(shot, 0) if split == 0 else split
        number = " ".join(f"{len(rows)}")  # of words that training rows have, too
        text = f"User{user} says: {words[stars]}, {words[stars]} indeed; number {number}."
        row = (f"U{user}", f"P{shot}", stars + 1.0, "01 1, 2013", 1_356_998_400, text)
        rows.append((*row, "sum", "True", "Books", 2013))
        splits.append((part,))
    head = ("reviewerID,asin,overall,reviewTime,unixReviewTime,reviewText,summary,verified,"
            "category,reviewYear")  # fmt: skip
    table(top / "reviews.csv", head, rows, csv.QUOTE_NONNUMERIC)
    table(top / "splits" / "user.csv", "split", splits)


def civilcomments(root: Path) -> None:
    """A word that is toxic or not, one or two identities; one comment is empty."""
    names = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
    more = ("identity_any", "severe_toxicity", "obscene", "threat", "insult", "identity_attack",
            "sexual_explicit")  # fmt: skip
    top, rows = released(root, "civilcomments", "1.0"), []
    splits = ("train", "train", "val", "test")
    for split, toxic, identity, shot in product(splits, range(2), range(8), range(2)):
        meant = {identity, (identity + 3 * shot) % 8}
        said = [0.9 if number in meant else 0.1 for number in range(8)]
        number = " ".join(f"{len(rows)}")
        said_of = (("fine", "good")[shot], "idiot")[toxic]
        text = f"{said_of} {names[identity]} {number}" * (len(rows) != 5)
        rows.append((7 * len(rows), text, split, 0.7 * toxic, *said, *[0.0] * 7))
    head = ",".join(["", "comment_text", "split", "toxicity", *names, *more])
    table(top / "all_data_with_identities.csv", head, rows)
    top = released(root, "civilcomments_unlabeled", "1.0")
    rows = [(k, f"{('fine', 'idiot')[k % 2]} crowd {k}", 0.9 * (k % 2)) for k in range(20)]
    table(top / "unlabeled_data_with_identities.csv", ",comment_text,toxicity", rows)


def of_layout(root: Path, layout: Layout, per: int = 5) -> None:
    """Red says the class, green the domain, and blue the shot."""
    for number, place in enumerate(layout.folders.values()):
        for label, shot in product(range(layout.classes), range(per)):
            home = root / place / f"class_{label:02d}"
            home.mkdir(parents=True, exist_ok=True)
            colour = (4 * label % 256, 60 * number % 256, 40 * shot)
            Image.new("RGB", (5, 4), colour).save(home / f"{shot}.png")


def of_class(folder: Path, count: int, red: int) -> None:
    """A folder of ImageNet's."""
    folder.mkdir(parents=True)
    for row in range(count):
        image = Image.new("RGB", (14 + row, 12), (red % 256, 40 * row, 7))
        image.save(folder / f"{folder.name}_{row}.JPEG", quality=95)


def living17(root: Path) -> None:
    """Every subclass with five images for training and one for validation."""
    for number, sides in enumerate(SPLITS["living17"].values()):
        for wnid in " ".join(sides).split():
            of_class(root / "imagenet/train" / wnid, 5, 14 * number)
            of_class(root / "imagenet/val" / wnid, 1, 14 * number)


WILDS = {
    plant.__name__: plant
    for plant in (
        *(amazon, camelyon17, celeba, civilcomments, domainnet),
        *(fmow, iwildcam, poverty, rxrx1, waterbirds),
    )
}
